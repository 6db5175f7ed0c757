import koffi from "koffi";
import { defineStructs } from "./runtime/abi.js";

/** Of prctl(2). */
const PR_SET_PDEATHSIG = 1;
const SIGCONT = 18;

/**
 * Has the kernel continue this process when the one that started it ends: one that is stopped (SIGSTOP, a debugger) would
 * otherwise sleep on, deaf to the end of its stdin. @returns false where the kernel refuses.
 */
export function wakeWithParentsDeath(): boolean {
  // koffi takes its settings only before the first library.
  defineStructs();
  const prctl = koffi
    .load(null)
    .func("int prctl(int option, unsigned long signal, unsigned long a, unsigned long b, unsigned long c)");
  return prctl(PR_SET_PDEATHSIG, SIGCONT, 0, 0, 0) === 0;
}
