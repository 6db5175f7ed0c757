// What the parameters of the Hopper attention kernels take from the arguments as they are.
#pragma once

#include <cstdint>

#include "ditrun.h"

/** Fills in all but tensor maps, blocks and scales of e4m3. */
template <class Parameters>
void take_arguments(Parameters &p, const ditrun_attention_args &args) {
  p.o = reinterpret_cast<void *>(args.o);
  p.lse = reinterpret_cast<float *>(args.lse);
  p.previousO = reinterpret_cast<const float *>(args.previousO);
  p.previousLse = reinterpret_cast<const float *>(args.previousLse);
  p.waitNanoseconds = reinterpret_cast<unsigned long long *>(args.waitNanoseconds);
  p.oStride = args.oStride;
  p.queries = args.queries;
  p.heads = args.heads;
  p.blockCount = args.blockCount;
  p.scaleLog2 = args.scale * 1.4426950408889634f;
}
