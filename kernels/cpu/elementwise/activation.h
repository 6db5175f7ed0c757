#pragma once

#include "ditrun.h"
#include "runtime/numbers.h"

namespace ditrun {

/** GELU exact (x Φ(x)) or by tanh (arXiv 1606.08415), SiLU (x σ(x)), or x itself. */
inline v8 activate8(v8 x, int activation) {
  switch (activation) {
    case DITRUN_GELU:
      return 0.5f * x * (1.0f + erf8(x * 0.70710678f));
    case DITRUN_GELU_TANH: {
      // (1 + tanh u) / 2 = 1 / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3)
      const v8 u = x * (0.79788456f + 0.035677408f * (x * x));
      return x / (1.0f + exp8(-2.0f * u));
    }
    case DITRUN_SILU:
      return x / (1.0f + exp8(-x));
    default:
      return x;
  }
}

/** Applies it to count floats in place; the buffer may be touched up to the next multiple of 8. */
inline void activateRun(float *x, int64_t count, int activation) {
  if (activation == DITRUN_IDENTITY) return;
  for (int64_t i = 0; i < count; i += 8) store8(x + i, activate8(load8(x + i), activation));
}

}  // namespace ditrun
