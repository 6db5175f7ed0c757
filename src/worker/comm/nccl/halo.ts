import type { Tensor } from "../../runtime/tensor.js";
import { boundaryOf, type HaloExchange, type Neighbours } from "../halo.js";
import type { Communicator } from "./communicator.js";

/** One grouped exchange, straight between the volumes: a message per frame. */
export class NcclHalo implements HaloExchange {
  constructor(private readonly comm: Communicator) {}

  exchange(volume: Tensor, neighbours: Neighbours): void {
    const { frames, rowBytes, framePitch, sides } = boundaryOf(volume, neighbours);
    if (sides.length === 0) return;
    const messages = (place: "own" | "halo") =>
      sides.flatMap((side) =>
        Array.from({ length: frames }, (_, frame) => ({
          address: side[place] + frame * framePitch,
          bytes: rowBytes,
          rank: this.comm.rank + side.step,
        })),
      );
    this.comm.exchange(messages("own"), messages("halo"));
  }
}
