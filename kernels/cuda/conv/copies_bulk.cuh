// conv::run's copies by Hopper's bulk tensor copy engine, in the 64-byte swizzle; what lies outside of the image
// arrives as zeros.
#pragma once

#include <cuda.h>

#include "conv/tensor.cuh"
#include "ptx/tma.cuh"

namespace conv {

struct BulkCopies {
  struct Args : conv::Args {
    CUtensorMap xMap, historyMap;  // [frames, height, width, channels]
    CUtensorMap weightMap;         // [kernelT · kernelH, kernelW, outChannels, channels]
  };
  static constexpr int arrivals = 1;
  static constexpr bool pixelsApart = true;

  /** One thread queues every step of every tile of this block, in order. */
  template <class L>
  static __device__ __forceinline__ void all(const Args &args, uint32_t base, const Barriers<L> &barriers) {
    if (threadIdx.x != 32 * warps) return;
    Cursor<L> weights, pixels;
    weights.begin(args);
    pixels = weights;
    Turn<slots> turn;
    Turn<L::pixelSlots> square;
    const auto copyPixels = [&] {
      if (pixels.done(args)) return;
      const int frame = pixels.frame * args.strideT + pixels.kernelFrame - (args.kernelT - 1);
      const CUtensorMap *map = frame < 0 ? &args.historyMap : &args.xMap;
      uint64_t *const barrier = barriers.pixels + square.slot;
      ptx::mbarrierExpect(barrier, L::inputPixels * pixelBytes);
      ptx::tmaLoad4d(base + L::pixelsAt + square.slot * L::pixelsBytes, map, barrier, pixels.channel,
                     (pixels.x0 - args.padLeft) >> L::shift, (pixels.y0 - args.padTop) >> L::shift,
                     frame < 0 ? frame + args.kernelT - 1 : frame);
      square.next();
      pixels.next(args);
    };
    copyPixels();
    for (; !weights.done(args); weights.next(args)) {
      for (int kernelColumn = 0; kernelColumn < L::kernelSize; kernelColumn++, turn.next()) {
        // The first time round every slot is free: a barrier that was never passed looks as if its odd phase had been.
        ptx::barrierWait(barriers.empty + turn.slot, turn.parity ^ 1);
        ptx::mbarrierExpect(barriers.full + turn.slot, L::weightBytes);
        ptx::tmaLoad4d(base + turn.slot * L::weightBytes, &args.weightMap, barriers.full + turn.slot, weights.channel,
                       weights.n0 * L::tileChannels, kernelColumn, weights.kernelFrame * L::kernelSize);
        if (kernelColumn == 0) copyPixels();
      }
    }
  }
};

}  // namespace conv
