// conv::run's copies by cp.async, 16 bytes a thread at a time.
#pragma once

#include "conv/tensor.cuh"

namespace conv {

struct AsyncCopies {
  using Args = conv::Args;
  static constexpr int arrivals = copyThreads;
  static constexpr bool pixelsApart = false;  // they are counted with the weights

  /** Queues a part (of kernelSize parts) of the stage's input pixels; pixels and channels that do not exist are zeros.
   */
  template <class L>
  static __device__ __forceinline__ void copyPixels(const Args &args, const Cursor<L> &at, int part, uint32_t to) {
    constexpr int items = L::inputPixels * 4, share = (items + L::kernelSize - 1) / L::kernelSize;
    const int frame = at.frame * args.strideT + at.kernelFrame - (args.kernelT - 1);
    const int64_t frameElements = int64_t(args.height) * args.width * args.inChannels;
    const __nv_bfloat16 *from =
        frame < 0 ? args.history + (frame + args.kernelT - 1) * frameElements : args.x + frame * frameElements;
    const int top = (at.y0 - args.padTop) >> L::shift, left = (at.x0 - args.padLeft) >> L::shift;
    const int thread = int(threadIdx.x) - 32 * warps, end = min(items, (part + 1) * share);
#pragma unroll
    for (int i = 0; i < (share + copyThreads - 1) / copyThreads; i++) {
      const int item = part * share + i * copyThreads + thread;
      if (item >= end) break;
      const int pixel = item >> 2, channel = at.channel + (item & 3) * 8;
      const int y = top + pixel / L::inputColumns, x = left + pixel % L::inputColumns;
      const bool inside =
          unsigned(y) < unsigned(args.height) && unsigned(x) < unsigned(args.width) && channel < args.inChannels;
      const uint32_t offset = inside ? uint32_t(y * args.width + x) * args.inChannels + channel : 0;
      ptx::copyAsync(to + swizzled(pixel, item & 3), from + offset, inside);
    }
  }

  /** Queues the weights of one kernel column of the stage: for each kernel row [tileChannels][32]. */
  template <class L>
  static __device__ __forceinline__ void copyWeights(const Args &args, const Cursor<L> &at, int kernelColumn,
                                                     uint32_t to) {
    constexpr int items = L::kernelSize * L::tileChannels * 4;
    const int taps = args.kernelT * L::kernelSize * L::kernelSize,
              firstTap = at.kernelFrame * L::kernelSize * L::kernelSize + kernelColumn;
    const int thread = int(threadIdx.x) - 32 * warps;
#pragma unroll
    for (int i = 0; i < (items + copyThreads - 1) / copyThreads; i++) {
      const int item = i * copyThreads + thread;
      if (items % copyThreads != 0 && item >= items) break;
      const int kernelRow = item / (L::tileChannels * 4), row = item / 4 % L::tileChannels;
      const int n = at.n0 * L::tileChannels + row, channel = at.channel + (item & 3) * 8;
      const bool inside = n < args.outChannels && channel < args.inChannels;
      const uint32_t offset =
          inside ? uint32_t(n * taps + firstTap + kernelRow * L::kernelSize) * args.inChannels + channel : 0;
      ptx::copyAsync(to + kernelRow * L::tapBytes + swizzled(row, item & 3), args.weight + offset, inside);
    }
  }

  /** The copying warps: every step of every tile of this block, in order. full[slot] is passed when the step and all
   * before it, pixels too, have arrived. */
  template <class L>
  static __device__ __forceinline__ void all(const Args &args, uint32_t base, const Barriers<L> &barriers) {
    Cursor<L> weights, pixels;
    weights.begin(args);
    pixels = weights;
    Turn<slots> turn;
    Turn<L::pixelSlots> square;
    const auto copyPart = [&](int part) {
      if (pixels.done(args)) return;
      copyPixels<L>(args, pixels, part, base + L::pixelsAt + square.slot * L::pixelsBytes);
      if (part + 1 < L::kernelSize) return;
      square.next();
      pixels.next(args);
    };
    for (int part = 0; part < L::kernelSize; part++) copyPart(part);
    for (; !weights.done(args); weights.next(args)) {
      for (int kernelColumn = 0; kernelColumn < L::kernelSize; kernelColumn++, turn.next()) {
        // The first time round every slot is free: a barrier that was never passed looks as if its odd phase had been.
        ptx::barrierWait(barriers.empty + turn.slot, turn.parity ^ 1);
        copyWeights<L>(args, weights, kernelColumn, base + turn.slot * L::weightBytes);
        copyPart(kernelColumn);
        ptx::copyArrive(barriers.full + turn.slot);
      }
    }
  }
};

}  // namespace conv
