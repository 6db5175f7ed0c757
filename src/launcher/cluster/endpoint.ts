import { isIPv6 } from "node:net";
import { DitrunError } from "../../failure.js";

/** Where somebody listens. */
export interface Endpoint {
  /** A name or an address, without brackets. */
  readonly host: string;
  readonly port: number;
}

/**
 * `name`, `name:1234`, `10.0.0.1:1234`, `[fd00::1]:1234`, or an IPv6 address alone.
 * @param by the option or variable that it comes from. @throws DitrunError for anything else.
 */
export function parseEndpoint(value: string, by: string): { readonly host: string; readonly port: number | undefined } {
  if (isIPv6(value)) return { host: value, port: undefined };
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([\w.-]+))(?::(\d{1,5}))?$/.exec(value) ?? [];
  const host = bracketed ?? plain;
  const port = digits === undefined ? undefined : Number(digits);
  const wrong = bracketed !== undefined && !isIPv6(bracketed);
  if (host !== undefined && !wrong && (port === undefined || (port >= 1 && port <= 65_535))) return { host, port };
  throw new DitrunError(
    "ERR_ALLOCATION",
    `${by} is "${value}"; it must be HOST, HOST:PORT or [IPv6 address]:PORT, with a port from 1 to 65535.`,
  );
}

/** As people write it. */
export function shownEndpoint({ host, port }: Endpoint): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** As ZeroMQ takes it. */
export function tcpOf(endpoint: Endpoint): string {
  return `tcp://${shownEndpoint(endpoint)}`;
}
