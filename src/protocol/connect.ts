/** Connects a ZeroMQ socket, also where a signal comes in the middle: libzmq then has done nothing, and says EINTR. */
export function connectTo(socket: { connect(address: string): void }, address: string): void {
  for (;;) {
    try {
      socket.connect(address);
      return;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EINTR")) throw error;
    }
  }
}
