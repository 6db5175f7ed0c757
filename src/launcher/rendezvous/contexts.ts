import { Context } from "zeromq";

/** Contexts whose sockets have been closed. */
const idle: Context[] = [];

/**
 * A context of one's own, until it is given back: the handler of who may connect is a context's. zeromq.js never frees one, so each that was
 * left would keep its threads and five open files. @param ioThreads that carry its bytes.
 */
export function takeContext(ioThreads = 1): Context {
  const at = idle.findIndex((each) => each.ioThreads === ioThreads);
  return idle.splice(at, at < 0 ? 0 : 1)[0] ?? new Context({ blocky: false, ioThreads });
}

/** To be called when all of its sockets have been closed. */
export function giveBackContext(context: Context): void {
  idle.push(context);
}
