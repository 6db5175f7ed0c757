/** The launcher's own environment, which every rank inherits. */
export function ownEnvironment(): Readonly<Record<string, string | undefined>> {
  return process.env;
}
