import { readdirSync } from "node:fs";

/** Of socket(7), as x86 and ARM have them. */
const SOL_SOCKET = 1;
const SO_ATTACH_FILTER = 26;
const SO_DETACH_FILTER = 27;
const SO_ACCEPTCONN = 30;
/** Longer than any address of TCP. */
const ADDRESS_BYTES = 128;
/** `return 0`, the whole of a classic BPF program: every packet is dropped (linux/filter.h). */
const DROP_ALL = Buffer.from([6, 0, 0, 0, 0, 0, 0, 0]);
const PROGRAM_BYTES = 16;

/** The sockets of this process at one port: who listens there, and how many are connected. */
export class PortSockets {
  private constructor(
    private readonly port: number,
    private readonly system: System,
  ) {}

  /** @throws Error where the C library cannot be called. */
  static async of(port: number): Promise<PortSockets> {
    return new PortSockets(port, await loadSystem());
  }

  /** Connections to the port that this process has open. */
  get connected(): number {
    return this.#all().filter((file) => !this.#listens(file)).length;
  }

  /**
   * Has the kernel drop what asks for a connection from now on, or no longer; who asks tries again by itself. Connections that
   * are open are not touched. @throws Error where the kernel refuses.
   */
  shut(shut: boolean): void {
    const listeners = this.#all().filter((file) => this.#listens(file));
    if (listeners.length === 0) throw new Error(`nobody listens at port ${this.port}`);
    for (const file of listeners) if (!this.system.setFilter(file, shut)) throw new Error("the kernel sets no filter");
  }

  #all(): number[] {
    const files = readdirSync("/proc/self/fd").map(Number);
    return files.filter((file) => this.system.portOf(file) === this.port);
  }

  #listens(file: number): boolean {
    return this.system.listens(file);
  }
}

interface System {
  /** Its own port; undefined for what is no socket of TCP. */
  portOf(file: number): number | undefined;
  listens(file: number): boolean;
  setFilter(file: number, dropAll: boolean): boolean;
}

/** Loaded when it is needed: no launch that nobody floods pays for it. */
async function loadSystem(): Promise<System> {
  const { default: koffi } = await import("koffi");
  const library = koffi.load(null);
  const getsockname = library.func("int getsockname(int file, void* address, void* length)");
  const getsockopt = library.func("int getsockopt(int file, int level, int name, void* value, void* length)");
  const setsockopt = library.func("int setsockopt(int file, int level, int name, const void* value, uint32_t length)");
  const program = Buffer.alloc(PROGRAM_BYTES);
  program.writeUInt16LE(1, 0);
  program.writeBigUInt64LE(BigInt(koffi.address(DROP_ALL)), 8);
  const lengthOf = (bytes: number) => Buffer.from(Uint32Array.of(bytes).buffer);
  return {
    portOf(file) {
      const address = Buffer.alloc(ADDRESS_BYTES);
      if (getsockname(file, address, lengthOf(address.length)) !== 0) return undefined;
      const inet = [2, 10].includes(address.readUInt16LE(0));
      // The port stands at the same place in an address of IPv4 and of IPv6.
      return inet ? address.readUInt16BE(2) : undefined;
    },
    listens(file) {
      const value = Buffer.alloc(4);
      return (
        getsockopt(file, SOL_SOCKET, SO_ACCEPTCONN, value, lengthOf(value.length)) === 0 && value.readInt32LE(0) === 1
      );
    },
    setFilter(file, dropAll) {
      if (dropAll) return setsockopt(file, SOL_SOCKET, SO_ATTACH_FILTER, program, program.length) === 0;
      return setsockopt(file, SOL_SOCKET, SO_DETACH_FILTER, Buffer.alloc(4), 4) === 0;
    },
  };
}
