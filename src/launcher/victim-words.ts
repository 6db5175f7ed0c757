/**
 * What libraries say where another rank has gone: gloo, NCCL, PyTorch's store and its watchdog, Python's sockets. A rank that ends
 * with such words is no cause as long as another one may be.
 */
const words = [
  /Connection (?:closed|reset|refused) by peer|Connection reset|Connection was likely closed|Connection aborted/i,
  /\b(?:BrokenPipeError|ConnectionResetError|ConnectionRefusedError|ConnectionAbortedError)\b|Broken pipe/,
  /remote process exited|ncclRemoteError|NCCL communicator (?:was )?aborted|ncclCommAbort/,
  /Watchdog caught collective operation timeout|Timed out waiting \d+ ?ms for (?:recv|send)/i,
  /failed to recv, got 0 bytes|Stop_waiting response is expected|recvValue failed|sendBytes failed/,
];

/** Whether a rank that ended with these last lines has probably lost a peer. */
export function soundsLikeVictim(lines: readonly string[]): boolean {
  return lines.some((line) => words.some((word) => word.test(line)));
}
