// Weights as files store them, to a dtype that kernels take. A file comes slower than any of this: a thread an element
// will do.
#include "decode/decode.h"

#include "norm/rows.cuh"
#include "shared/read_queue.h"

static __device__ inline float scaleOfRow(const ditrun_decode_args &a, int row) {
  return a.scale == 0 ? 1.0f : asPointer<const float>(a.scale)[a.scaleRows * row];
}

template <int kind>
__device__ inline float scaledElement(const ditrun_decode_args &a, int row, int64_t column, float scale) {
  const float value = stored::decodeOne<kind>(asPointer<const uint8_t>(a.x) + row * a.rowBytes, a.firstColumn + column);
  return a.scale == 0 ? value : value * scale;
}

template <int kind>
__global__ void __launch_bounds__(256, 4) decodeElements(const ditrun_decode_args a) {
  const int64_t step = int64_t(gridDim.x) * 256;
  for (int row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const float scale = scaleOfRow(a, row);
    for (int64_t column = int64_t(blockIdx.x) * 256 + threadIdx.x; column < a.columns; column += step)
      storeOne(asPointer<void>(a.out), row * a.ldo + column, a.outDtype, scaledElement<kind>(a, row, column, scale));
  }
}

/** A block a row, which is decoded twice, the second time from cache: for its largest element, and to be divided. */
template <int kind>
__global__ void __launch_bounds__(256, 4) decodeToE4m3(const ditrun_decode_args a) {
  constexpr bool keeps = kind == DITRUN_STORED_F8_E4M3;
  const int row = blockIdx.x;
  const float scale = scaleOfRow(a, row);
  float amax = 0, sum = 0;
  if (!keeps || a.squares != 0) {
    for (int64_t column = threadIdx.x; column < a.columns; column += 256) {
      const float value = scaledElement<kind>(a, row, column, scale);
      amax = fmaxf(amax, fabsf(value));
      sum = fmaf(value, value, sum);
    }
  }
  const float rowScale = keeps ? scale : scaleOfAmax(reduceRow<256, maxOf, 0>(amax));
  const float squares = reduceRow<256, sumOf, 1>(sum);
  if (threadIdx.x == 0) {
    asPointer<float>(a.outScale)[row] = rowScale;
    if (a.squares != 0) asPointer<float>(a.squares)[row] = squares;
  }
  uint8_t *const out = asPointer<uint8_t>(a.out) + row * a.columns;
  const uint8_t *const from = asPointer<const uint8_t>(a.x) + row * a.rowBytes + a.firstColumn;
  for (int64_t column = threadIdx.x; column < a.columns; column += 256) {
    if constexpr (keeps) out[column] = from[column];
    else storeOne(out, column, DITRUN_E4M3, __fdiv_rn(scaledElement<kind>(a, row, column, scale), rowScale));
  }
}

int launchDecode(const ditrun_decode_args &args, cudaStream_t stream) {
  const bool quantised = args.outDtype == DITRUN_E4M3;
  // Rows may be one, or a million of a few elements: blocks go along both.
  const int across = gridFor(args.columns, 256, deviceFacts().multiprocessors);
  const dim3 grid(across, args.rows < 65535 ? args.rows : 65535);
  stored::withKind(args.stored, [&]<int kind>() {
    if (quantised) decodeToE4m3<kind><<<args.rows, 256, 0, stream>>>(args);
    else decodeElements<kind><<<grid, 256, 0, stream>>>(args);
  });
  return launched("ditrun_decode");
}

int ditrun_decode(const ditrun_decode_args *args, uint64_t stream) {
  TRY(useDevice());
  if (!args) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_decode needs its arguments, got a null pointer.");
  if (const auto why = reading::refusal(*args, false))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_decode: %s.", why->c_str());
  return launchDecode(*args, asStream(stream));
}
