// o = softmax(scale q·kᵀ + bias) v over blocks of keys and values, each read once its flag is set.
//
// Flash attention (arXiv 2307.08691, algorithm 1): per query a running maximum m, a sum l of e^(s - m) and an output
// that is rescaled when m grows. They stay in float32 scratch between blocks. Keys and values are packed, a chunk at a
// time for all heads, into panels of 16 keys and of 16 head dimensions; a task is one head and one strip of queries.
// In e4m3, packing scales keys back; values stay as they are, and their scale comes last.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "peer/flags.h"
#include "quantize/kv_layout.h"
#include "runtime/micro.h"
#include "quantize/quantize_row.h"
#include "runtime/parallel.h"
#include "runtime/scratch.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

constexpr int64_t stripQueries = 48;
constexpr int64_t tileKeys = 256;
constexpr int64_t chunkKeys = 1024;
constexpr int maxHeadDim = 512;

/** Probabilities, at most 1, are rounded to e4m3 and f16 times this, as the Hopper kernels do: the largest power of two
 * that keeps them below e4m3's 448; in f16 it keeps 22 octaves in the normal range. */
constexpr float probabilityScale = 256.0f;

int64_t roundUp(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

struct Attention : ditrun_attention_args {
  std::vector<ditrun_kv_block> kvBlocks;

  int64_t paddedDim() const { return roundUp(headDim, panelColumns); }

  /** Keys [key0, key0 + keys) of all heads: K as [head][key / 16][headDim][16], V as [head][dim / 16][key][16]. */
  void pack(const ditrun_kv_block &block, int64_t key0, int64_t keys, float *packedK, float *packedV) const {
    const int64_t keyPanels = roundUp(keys, panelColumns) / panelColumns;
    const int64_t dimPanels = paddedDim() / panelColumns;
    parallelFor(heads * keyPanels, keys * heads * headDim > parallelWork, [&](int64_t task, int64_t) {
      const int64_t head = task / keyPanels;
      const int64_t panel = task % keyPanels;
      float decoded[panelColumns][maxHeadDim];
      const int64_t first = panel * panelColumns;
      const int64_t count = std::min<int64_t>(panelColumns, keys - first);
      packPanel(
          count, headDim, [&](int64_t r) { return keyRow(block, head, key0 + first + r, decoded[r]); },
          packedK + (head * keyPanels + panel) * headDim * panelColumns);
      float *const to = packedV + (head * dimPanels * keys + first) * panelColumns;
      if (dtype == DITRUN_E4M3) {
        packChannels(block, head, key0 + first, count, to, keys);
      } else {
        packValues(block, head, key0 + first, count, to, keys);
      }
    });
  }

  /** One key of one head as float32, in the buffer or where it is. */
  const float *keyRow(const ditrun_kv_block &block, int64_t head, int64_t key, float *buffer) const {
    const float *const x = readRun(block.k, dtype, key * block.kStride + head * headDim, headDim, buffer);
    if (dtype == DITRUN_E4M3) {
      const float keyScale = pointer<const float>(block.kScale)[(head * block.vStride + key) / DITRUN_FP8_KEYS];
      for (int64_t d = 0; d < headDim; d++) buffer[d] *= keyScale;
    }
    return x;
  }

  /** At most 16 values, rows of a head, to panels of 16 dimensions that are `keys` rows long. */
  void packValues(const ditrun_kv_block &block, int64_t head, int64_t key0, int64_t count, float *to,
                  int64_t keys) const {
    for (int64_t r = 0; r < count; r++) {
      float row[maxHeadDim];
      const float *const v = readRun(block.v, dtype, (key0 + r) * block.vStride + head * headDim, headDim, row);
      for (int64_t d = 0; d < paddedDim(); d++) {
        to[(d / panelColumns * keys + r) * panelColumns + d % panelColumns] = d < headDim ? v[d] : 0.0f;
      }
    }
  }

  /** The same from e4m3 values, whose rows are channels and whose keys stand in wgmma's order. */
  void packChannels(const ditrun_kv_block &block, int64_t head, int64_t key0, int64_t count, float *to,
                    int64_t keys) const {
    for (int64_t d = 0; d < paddedDim(); d++) {
      float places[panelColumns] = {};
      if (d < headDim) readRun(block.v, dtype, (head * headDim + d) * block.vStride + key0, panelColumns, places);
      for (int64_t place = 0; place < panelColumns; place++) {
        const int64_t r = keyOfPlace[place];
        if (r < count) to[(d / panelColumns * keys + r) * panelColumns + d % panelColumns] = places[place];
      }
    }
  }

  /**
   * One strip of queries of one head against a packed chunk. acc [rows, paddedDim], m and l [rows] are its state;
   * own holds scale * q [stripQueries, paddedDim] and the scores [stripQueries, tileKeys]. The chunk begins at key
   * `before` of all keys, of which there are `allKeys`: what the relative bias goes by.
   */
  void strip(int64_t head, int64_t query0, int64_t rows, int64_t keys, int64_t before, int64_t allKeys,
             const float *packedK, const float *packedV, float *acc, float *m, float *l, float *own) const {
    const int64_t dim = paddedDim();
    const int64_t keyPanels = roundUp(keys, panelColumns) / panelColumns;
    float *const qRows = own;
    float *const scores = own + stripQueries * dim;
    for (int64_t r = 0; r < rows; r++) {
      float *const row = qRows + r * dim;
      copyRun(q, dtype, (query0 + r) * qStride + head * headDim, headDim, row);
      const float factor =
          dtype == DITRUN_E4M3 ? pointer<const float>(qScale)[(query0 + r) * heads + head] * scale : scale;
      for (int64_t i = 0; i < headDim; i++) row[i] *= factor;
    }
    for (int64_t key0 = 0; key0 < keys; key0 += tileKeys) {
      const int64_t count = std::min<int64_t>(tileKeys, keys - key0);
      const int64_t padded = roundUp(count, panelColumns);
      for (int64_t c = 0; c < padded; c += panelColumns) {
        const float *panel = packedK + (head * keyPanels + (key0 + c) / panelColumns) * headDim * panelColumns;
        multiplyPanel<false>(rows, qRows, dim, panel, headDim, scores + c, tileKeys);
      }
      if (relativeBias != 0) {
        const float *const bias = pointer<const float>(relativeBias) + head * (queries + allKeys - 1);
        for (int64_t r = 0; r < rows; r++) {
          const float *const from = bias + before + key0 - (query0 + r) + queries - 1;
          for (int64_t i = 0; i < count; i++) scores[r * tileKeys + i] += from[i];
        }
      }
      for (int64_t r = 0; r < rows; r++) softmaxRow(scores + r * tileKeys, count, padded, acc + r * dim, m[r], l[r]);
      for (int64_t d = 0; d < dim; d += panelColumns) {
        const float *panel = packedV + ((head * (dim / panelColumns) + d / panelColumns) * keys + key0) * panelColumns;
        multiplyPanel<true>(rows, scores, tileKeys, panel, count, acc + d, dim);
      }
    }
  }

  /**
   * Scores to probabilities relative to the new maximum, rounded to V's dtype. The sum is of the unrounded ones but in
   * e4m3 and f16, where the rounded ones are all that the matrix unit sees.
   */
  void softmaxRow(float *s, int64_t count, int64_t padded, float *acc, float &m, float &l) const {
    if (dtype == DITRUN_F16) {
      // what f16 could not hold is infinite, and must show: inf - inf
      for (int64_t i = 0; i < count; i++) s[i] += s[i] * 0.0f;
    }
    for (int64_t i = count; i < padded; i++) s[i] = -std::numeric_limits<float>::infinity();
    v8 best = all8(-std::numeric_limits<float>::infinity());
    for (int64_t i = 0; i < padded; i += 8) {
      const v8 x = load8(s + i);
      best = x > best ? x : best;
    }
    const float maximum = std::max(m, max8(best));
    const float shrink = m == maximum ? 1.0f : std::exp(m - maximum);
    m = maximum;
    if (shrink != 1.0f) {
      for (int64_t i = 0; i < paddedDim(); i++) acc[i] *= shrink;
    }
    v8 sum{};
    for (int64_t i = 0; i < padded; i += 8) {
      const v8 p = exp8(load8(s + i) - maximum);
      sum += p;
      store8(s + i, p);
    }
    if (dtype == DITRUN_E4M3 || dtype == DITRUN_F16) {
      for (int64_t i = 0; i < padded; i++) {
        const float scaled = s[i] * probabilityScale;
        s[i] = (dtype == DITRUN_F16 ? fromF16(toF16(scaled)) : fromE4m3(toE4m3(scaled))) / probabilityScale;
      }
      sum = v8{};
      for (int64_t i = 0; i < padded; i += 8) sum += load8(s + i);
    }
    l = l * shrink + sum8(sum);
    if (dtype == DITRUN_BF16) {
      for (int64_t i = 0; i < count; i++) s[i] = fromBf16(toBf16(s[i]));
    }
  }

  /** o = acc / l, merged with the previous partial result, and the log-sum-exp. */
  void finish(int64_t head, int64_t query0, int64_t rows, const float *acc, const float *m, const float *l) const {
    for (int64_t r = 0; r < rows; r++) {
      float x[maxHeadDim];
      const int64_t query = query0 + r;
      float total = m[r] + std::log(l[r]);
      for (int64_t i = 0; i < headDim; i++) x[i] = acc[r * paddedDim() + i] / l[r];
      if (dtype == DITRUN_E4M3) {
        for (int64_t i = 0; i < headDim; i++) x[i] *= pointer<const float>(vScale)[head * headDim + i];
      }
      if (previousO != 0) {
        const float before = pointer<const float>(previousLse)[head * queries + query];
        const float *old = pointer<const float>(previousO) + (query * heads + head) * headDim;
        const float larger = std::max(before, total);
        const float merged = larger + std::log(std::exp(before - larger) + std::exp(total - larger));
        const float oldShare = std::exp(before - merged);
        const float share = std::exp(total - merged);
        for (int64_t i = 0; i < headDim; i++) x[i] = oldShare * old[i] + share * x[i];
        total = merged;
      }
      if (lse != 0) pointer<float>(lse)[head * queries + query] = total;
      const int64_t to = query * oStride + head * headDim;
      if (oDtype == DITRUN_E4M3) quantizeRow(x, headDim, o, to, pointer<float>(oScale) + query * heads + head);
      else writeRun(o, oDtype, to, headDim, x);
    }
  }

  void run(Stream &stream) const {
    const int64_t dim = paddedDim();
    const int64_t strips = (queries + stripQueries - 1) / stripQueries;
    const int64_t threads = threadCount();
    const int64_t perThread = stripQueries * (dim + tileKeys);
    int64_t longest = 0;
    int64_t allKeys = 0;
    for (const auto &block : kvBlocks) {
      longest = std::max<int64_t>(longest, block.length);
      allKeys += block.length;
    }
    int64_t before = 0;
    const int64_t chunk = roundUp(std::min(chunkKeys, longest), panelColumns);
    const int64_t states = static_cast<int64_t>(heads) * queries;
    float *const acc = scratch(states * (dim + 2) + 2 * heads * chunk * dim + threads * perThread + 64);
    float *const m = acc + states * dim;
    float *const l = m + states;
    float *const packedK = l + states;
    float *const packedV = packedK + heads * chunk * dim;
    float *const own = packedV + heads * chunk * dim;
    std::fill(acc, acc + states * dim, 0.0f);
    std::fill(m, m + states, -std::numeric_limits<float>::infinity());
    std::fill(l, l + states, 0.0f);

    for (size_t b = 0; b < kvBlocks.size(); b++) {
      const ditrun_kv_block &block = kvBlocks[b];
      if (block.flag != 0) {
        const auto start = std::chrono::steady_clock::now();
        waitFlag(block.flag, stream);
        if (waitNanoseconds != 0) {
          const auto waited = std::chrono::steady_clock::now() - start;
          pointer<uint64_t>(waitNanoseconds)[b] +=
              static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(waited).count());
        }
      }
      for (int64_t key0 = 0; key0 < block.length; key0 += chunk) {
        const int64_t keys = std::min<int64_t>(chunk, block.length - key0);
        pack(block, key0, keys, packedK, packedV);
        parallelFor(
            heads * strips, states * keys > parallelWork / 8,
            [&](int64_t task, int64_t thread) {
              const int64_t head = task / strips;
              const int64_t query0 = task % strips * stripQueries;
              const int64_t state = head * queries + query0;
              strip(head, query0, std::min<int64_t>(stripQueries, queries - query0), keys, before, allKeys, packedK,
                    packedV, acc + state * dim, m + state, l + state, own + thread * perThread);
            },
            1);
        before += keys;
      }
    }
    parallelFor(heads * strips, states * dim > parallelWork, [&](int64_t task, int64_t) {
      const int64_t head = task / strips;
      const int64_t part = task % strips;
      const int64_t query0 = part * stripQueries;
      const int64_t state = head * queries + query0;
      finish(head, query0, std::min<int64_t>(stripQueries, queries - query0), acc + state * dim, m + state, l + state);
    });
  }
};

void check(const ditrun_attention_args &a) {
  const char *const f = "ditrun_attention";
  require(a.queries > 0 && a.heads > 0, f, ": queries and heads are ", a.queries, " and ", a.heads,
          " but must be positive.");
  require(a.headDim > 0 && a.headDim <= maxHeadDim, f, ": headDim is ", a.headDim, " but must be 1 to ", maxHeadDim,
          ".");
  require(a.blockCount > 0 && a.blockCount <= DITRUN_MAX_KV_BLOCKS, f, ": blockCount is ", a.blockCount,
          " but must be 1 to ", DITRUN_MAX_KV_BLOCKS, ".");
  require(a.kernel == 0 || a.kernel == 1, f, ": kernel is ", a.kernel,
          ", which the CPU module does not have; use 0 (fastest) or 1 (generic).");
  requireDtype(f, "dtype", a.dtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16, DITRUN_E4M3);
  if (a.oDtype == DITRUN_E4M3) {
    require(a.dtype == DITRUN_E4M3 || a.dtype == DITRUN_BF16, f,
            ": o is e4m3, which only e4m3 and bf16 operands give.");
    requireAddress(f, "oScale", a.oScale, 4);
  } else {
    requireDtype(f, "oDtype", a.oDtype, DITRUN_F32, DITRUN_BF16);
  }
  const int64_t row = static_cast<int64_t>(a.heads) * a.headDim;
  const auto stride = [&](const char *name, int64_t value) {
    require(value >= row, f, ": ", name, " is ", value, " but a row of ", a.heads, " heads of ", a.headDim, " has ",
            row, " elements.");
  };
  stride("qStride", a.qStride);
  stride("oStride", a.oStride);
  requireAddress(f, "q", a.q, dtypeBytes(a.dtype));
  requireAddress(f, "o", a.o, dtypeBytes(a.oDtype));
  const bool e4m3 = a.dtype == DITRUN_E4M3;
  if (e4m3) {
    requireAddress(f, "qScale", a.qScale, 4);
    requireAddress(f, "vScale", a.vScale, 4);
  }
  requireOptional(f, "lse", a.lse, 4);
  requireOptional(f, "relativeBias", a.relativeBias, 4);
  requireOptional(f, "waitNanoseconds", a.waitNanoseconds, 8);
  require((a.previousO == 0) == (a.previousLse == 0), f,
          ": previousO and previousLse are needed together, but one is 0.");
  requireOptional(f, "previousO", a.previousO, 4);
  requireOptional(f, "previousLse", a.previousLse, 4);
  require(a.blocks != nullptr, f, ": blocks is null.");
  for (int b = 0; b < a.blockCount; b++) {
    const ditrun_kv_block &block = a.blocks[b];
    require(block.length > 0, f, ": block ", b, " has length ", block.length, " but must have at least one key.");
    stride("kStride", block.kStride);
    if (e4m3) {
      require(block.vStride == paddedKeys(block.length), f, ": vStride of block ", b, " is ", block.vStride,
              " but e4m3 rows of ", block.length, " keys are padded to ", paddedKeys(block.length), ".");
      requireAddress(f, "kScale", block.kScale, 4);
    } else {
      stride("vStride", block.vStride);
    }
    requireAddress(f, "k", block.k, dtypeBytes(a.dtype));
    requireAddress(f, "v", block.v, dtypeBytes(a.dtype));
    requireOptional(f, "flag", block.flag, 4);
  }
}

}  // namespace
}  // namespace ditrun

int ditrun_attention(const ditrun_attention_args *args, uint64_t stream) {
  using namespace ditrun;
  return guarded([&] {
    require(args != nullptr, "ditrun_attention: args is null.");
    check(*args);
    Attention attention{*args, {args->blocks, args->blocks + args->blockCount}};
    attention.blocks = nullptr;  // the caller's array is not kept
    submit("ditrun_attention", stream, [attention = std::move(attention)](Stream &on) { attention.run(on); });
  });
}
