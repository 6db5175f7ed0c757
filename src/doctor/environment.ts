export type Environment = Readonly<Record<string, string | undefined>>;

/** Whether nobody has set the variable, or to nothing. */
export function isUnset(value: string | undefined): value is undefined | "" {
  return value === undefined || value === "";
}
