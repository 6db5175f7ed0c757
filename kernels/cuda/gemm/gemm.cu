// ditrun_gemm: our Hopper kernel (gemm/sm90.cu) where it is faster, else cuBLASLt with bias and residual in its
// epilogue, and gemm/finish.cu for what that epilogue cannot do.
//
// cuBLASLt thinks in columns: a row-major out [m, n] is a column-major [n, m], so its A is our W (transposed) and its B
// our A. Rounding: float32 accumulation (e4m3 too, unless DITRUN_FP8_FAST_ACCUMULATE=1), one rounding when out is
// stored. Where gemmFinish follows (an activation, or a bias or residual of another dtype than out), it reads and
// rounds the stored value again.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "gemm/cublaslt.h"
#include "runtime/device.h"
#include "gemm/finish.h"
#include "gemm/sm90.h"
#include "runtime/numbers.cuh"

// A stream that runs GEMMs holds a part of the workspace, for two at once would overwrite each other's partial sums.
// NVIDIA advises 32 MiB on Hopper; a third stream gets none, and kernels that need none.
constexpr size_t workspacePart = size_t(32) << 20;
constexpr int workspaceParts = 2;

// What decides the choice of a kernel. Compared as bytes, so it holds no padding.
struct PlanKey {
  int64_t lda, ldw, ldo, ldc, aStride, wStride, outStride, cStride, biasStride, workspace;
  int32_t m, n, k, batch, dtype, outDtype, biasDtype;
  int32_t hasBias, hasResidual, outerScales;
  int32_t aAlign, wAlign, cAlign, outAlign;
  bool operator==(const PlanKey &other) const { return memcmp(this, &other, sizeof *this) == 0; }
};
static_assert(std::has_unique_object_representations_v<PlanKey>);

struct PlanKeyHash {
  size_t operator()(const PlanKey &key) const {
    const unsigned char *bytes = reinterpret_cast<const unsigned char *>(&key);
    uint64_t hash = 14695981039346656037ull;  // FNV-1a
    for (size_t i = 0; i < sizeof key; i++) hash = (hash ^ bytes[i]) * 1099511628211ull;
    return hash;
  }
};

struct Plan {
  cublasLtMatmulDesc desc = nullptr;
  cublasLtMatrixLayout a = nullptr, b = nullptr, c = nullptr, d = nullptr;
  cublasLtMatmulHeuristicResult choice{};
  bool found = false;
};

struct Gemm {
  CublasLt lt;
  bool ready = false;
  std::string version;
  cublasLtHandle handle = nullptr;
  char *workspace = nullptr;
  std::array<cudaStream_t, workspaceParts> holders{};
  std::array<bool, workspaceParts> held{};
  std::unordered_map<PlanKey, Plan, PlanKeyHash> plans;
  bool fastAccumulate = false;
};
static std::mutex gemmMutex;
static Gemm gemm;

void gemmOpen() {
  std::lock_guard<std::mutex> lock(gemmMutex);
  if (!gemm.lt.open()) return;  // the first GEMM says so
  const int status = gemm.lt.create(&gemm.handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    gemm.lt.library.problem = std::string("cublasLtCreate failed with ") + gemm.lt.statusName(status) + ".";
    return;
  }
  void *workspace = nullptr;
  if (cudaMalloc(&workspace, workspacePart * workspaceParts) != cudaSuccess) {
    cudaGetLastError();
    gemm.lt.library.problem = "There was no room for the 64 MiB workspace of the GEMMs when the device was opened.";
    return;
  }
  countMemory(int64_t(workspacePart * workspaceParts));
  gemm.workspace = static_cast<char *>(workspace);
  const size_t version = gemm.lt.getVersion();
  gemm.version =
      std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100);
  const char *fast = getenv("DITRUN_FP8_FAST_ACCUMULATE");
  gemm.fastAccumulate = fast && strcmp(fast, "1") == 0;
  gemm.ready = true;
}

static void destroyPlan(Plan &plan) {
  if (plan.desc) gemm.lt.descDestroy(plan.desc);
  for (cublasLtMatrixLayout layout : {plan.a, plan.b, plan.c, plan.d})
    if (layout) gemm.lt.layoutDestroy(layout);
  plan = Plan{};
}

void gemmClose() {
  std::lock_guard<std::mutex> lock(gemmMutex);
  for (auto &entry : gemm.plans) destroyPlan(entry.second);
  gemm.plans.clear();
  if (gemm.workspace) {
    cudaFree(gemm.workspace);
    countMemory(-int64_t(workspacePart * workspaceParts));
  }
  if (gemm.handle) gemm.lt.destroy(gemm.handle);
  gemm.workspace = nullptr;
  gemm.handle = nullptr;
  gemm.held = {};
  gemm.ready = false;
}

void gemmForgetStream(cudaStream_t stream) {
  std::lock_guard<std::mutex> lock(gemmMutex);
  for (int i = 0; i < workspaceParts; i++)
    if (gemm.held[i] && gemm.holders[i] == stream) gemm.held[i] = false;
}

const char *cublasLtVersion() { return gemm.ready ? gemm.version.c_str() : nullptr; }

static void *workspaceOf(cudaStream_t stream) {
  for (int i = 0; i < workspaceParts; i++)
    if (gemm.held[i] && gemm.holders[i] == stream) return gemm.workspace + i * workspacePart;
  for (int i = 0; i < workspaceParts; i++)
    if (!gemm.held[i]) {
      gemm.held[i] = true;
      gemm.holders[i] = stream;
      return gemm.workspace + i * workspacePart;
    }
  return nullptr;
}

static int cudaType(int dtype) {
  return dtype == DITRUN_F32    ? CUDA_TYPE_R_32F
         : dtype == DITRUN_BF16 ? CUDA_TYPE_R_16BF
         : dtype == DITRUN_F16  ? CUDA_TYPE_R_16F
                                : CUDA_TYPE_R_8F_E4M3;
}

static int failLt(int status, const char *what, const PlanKey &key) {
  return fail(DITRUN_DEVICE_ERROR, "%s failed with %s for m %d, n %d, k %d, batch %d, %s to %s.", what,
              gemm.lt.statusName(status), key.m, key.n, key.k, key.batch, dtypeName(key.dtype),
              dtypeName(key.outDtype));
}

#define LT_TRY(call)                                                            \
  do {                                                                          \
    const int ltStatus = (call);                                                \
    if (ltStatus != CUBLAS_STATUS_SUCCESS) return failLt(ltStatus, #call, key); \
  } while (0)

static int makeLayout(cublasLtMatrixLayout *layout, const PlanKey &key, int dtype, int64_t rows, int64_t columns,
                      int64_t ld, int64_t stride) {
  LT_TRY(gemm.lt.layoutCreate(layout, cudaType(dtype), uint64_t(rows), uint64_t(columns), ld));
  if (key.batch > 1) {
    LT_TRY(gemm.lt.layoutSet(*layout, LAYOUT_BATCH_COUNT, &key.batch, sizeof key.batch));
    LT_TRY(gemm.lt.layoutSet(*layout, LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride));
  }
  return DITRUN_OK;
}

static int setDesc(const Plan &plan, const PlanKey &key, int attribute, const void *value, size_t bytes) {
  LT_TRY(gemm.lt.descSet(plan.desc, attribute, value, bytes));
  return DITRUN_OK;
}

static int describe(Plan &plan, const PlanKey &key) {
  LT_TRY(gemm.lt.descCreate(&plan.desc, CUBLAS_COMPUTE_32F, CUDA_TYPE_R_32F));
  const int32_t transpose = CUBLAS_OP_T, straight = CUBLAS_OP_N;
  TRY(setDesc(plan, key, DESC_TRANSA, &transpose, sizeof transpose));
  TRY(setDesc(plan, key, DESC_TRANSB, &straight, sizeof straight));
  const uint32_t epilogue = key.hasBias ? EPILOGUE_BIAS : EPILOGUE_DEFAULT;
  TRY(setDesc(plan, key, DESC_EPILOGUE, &epilogue, sizeof epilogue));
  if (key.hasBias) {
    const int32_t biasType = cudaType(key.biasDtype);
    TRY(setDesc(plan, key, DESC_BIAS_DATA_TYPE, &biasType, sizeof biasType));
    if (key.batch > 1) TRY(setDesc(plan, key, DESC_BIAS_BATCH_STRIDE, &key.biasStride, sizeof key.biasStride));
  }
  if (key.outerScales) {
    const int32_t mode = SCALE_OUTER_VEC_32F;
    TRY(setDesc(plan, key, DESC_A_SCALE_MODE, &mode, sizeof mode));
    TRY(setDesc(plan, key, DESC_B_SCALE_MODE, &mode, sizeof mode));
  }
  if (key.dtype == DITRUN_E4M3) {
    const int8_t fast = gemm.fastAccumulate;
    TRY(setDesc(plan, key, DESC_FAST_ACCUM, &fast, sizeof fast));
  }
  TRY(makeLayout(&plan.a, key, key.dtype, key.k, key.n, key.ldw, key.wStride));
  TRY(makeLayout(&plan.b, key, key.dtype, key.k, key.m, key.lda, key.aStride));
  TRY(makeLayout(&plan.c, key, key.outDtype, key.n, key.m, key.ldc, key.cStride));
  TRY(makeLayout(&plan.d, key, key.outDtype, key.n, key.m, key.ldo, key.outStride));
  return DITRUN_OK;
}

/** The heuristic's first answer; plan.found stays false where cuBLASLt has no such kernel. */
static int choose(Plan &plan, const PlanKey &key) {
  cublasLtMatmulPreference preference = nullptr;
  LT_TRY(gemm.lt.preferenceCreate(&preference));
  const auto set = [&](int attribute, const auto &value) {
    return gemm.lt.preferenceSet(preference, attribute, &value, sizeof value);
  };
  const uint64_t workspace = uint64_t(key.workspace);
  int status = set(PREF_MAX_WORKSPACE_BYTES, workspace);
  const struct {
    int attribute;
    uint32_t bytes;
  } alignments[] = {{PREF_MIN_ALIGNMENT_A_BYTES, uint32_t(key.wAlign)},
                    {PREF_MIN_ALIGNMENT_B_BYTES, uint32_t(key.aAlign)},
                    {PREF_MIN_ALIGNMENT_C_BYTES, uint32_t(key.cAlign)},
                    {PREF_MIN_ALIGNMENT_D_BYTES, uint32_t(key.outAlign)}};
  for (const auto &alignment : alignments)
    if (status == CUBLAS_STATUS_SUCCESS) status = set(alignment.attribute, alignment.bytes);
  int returned = 0;
  if (status == CUBLAS_STATUS_SUCCESS)
    status = gemm.lt.heuristic(gemm.handle, plan.desc, plan.a, plan.b, plan.c, plan.d, preference, 1, &plan.choice,
                               &returned);
  gemm.lt.preferenceDestroy(preference);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) returned = 0;
  else LT_TRY(status);
  plan.found = returned > 0 && plan.choice.state == CUBLAS_STATUS_SUCCESS;
  return DITRUN_OK;
}

/** The cached plan for key; its `found` says whether cuBLASLt has a kernel for it. */
static int planFor(const PlanKey &key, Plan **plan) {
  auto entry = gemm.plans.find(key);
  if (entry == gemm.plans.end()) {
    Plan made;
    int status = describe(made, key);
    // The pointers are set before the choice: cuBLASLt takes a description with a null scale for one without scales.
    const uint64_t placeholder = reinterpret_cast<uint64_t>(gemm.workspace);
    if (status == DITRUN_OK && key.hasBias)
      status = setDesc(made, key, DESC_BIAS_POINTER, &placeholder, sizeof placeholder);
    if (status == DITRUN_OK && key.outerScales)
      status = setDesc(made, key, DESC_A_SCALE_POINTER, &placeholder, sizeof placeholder);
    if (status == DITRUN_OK && key.outerScales)
      status = setDesc(made, key, DESC_B_SCALE_POINTER, &placeholder, sizeof placeholder);
    if (status == DITRUN_OK) status = choose(made, key);
    if (status != DITRUN_OK) {
      destroyPlan(made);
      return status;
    }
    entry = gemm.plans.emplace(key, made).first;
  }
  *plan = &entry->second;
  return DITRUN_OK;
}

/** The largest power of two, at most 256, that divides an address and the byte distances of rows and batches. */
static int alignmentOf(uint64_t address, int64_t ld, int64_t stride, int bytes) {
  const uint64_t bits = address | uint64_t(ld * bytes) | uint64_t(stride * bytes) | 256;
  return int(bits & ~(bits - 1));
}

static int checkArguments(const ditrun_gemm_args *a) {
  if (!a) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_gemm got no arguments.");
  if (a->m < 0 || a->n <= 0 || a->k <= 0 || a->batch <= 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_gemm got m %d, n %d, k %d, batch %d; all must be positive.", a->m,
                a->n, a->k, a->batch);
  if (a->lda < a->k || a->ldw < a->k || a->ldo < a->n || (a->residual && a->ldResidual < a->n))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_gemm got leading dimensions %lld (A), %lld (W), %lld (out), %lld (residual) for k %d and n %d.",
                (long long)a->lda, (long long)a->ldw, (long long)a->ldo, (long long)a->ldResidual, a->k, a->n);
  const bool fp8 = a->dtype == DITRUN_E4M3;
  const bool toE4m3 = fp8 && a->outDtype == DITRUN_E4M3;
  const bool toKnown = isFloatOrF16(a->outDtype) || toE4m3;
  if (!(isFloatOrF16(a->dtype) || fp8) || !toKnown || (a->dtype == DITRUN_F32 && a->outDtype != DITRUN_F32) ||
      (a->dtype == DITRUN_F16 && a->outDtype == DITRUN_BF16))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_gemm multiplies f32 to f32, bf16 to f32, bf16 or f16, f16 to f32 or f16, and e4m3 to f32, "
                "bf16, f16 or e4m3, not %s to %s.",
                dtypeName(a->dtype), dtypeName(a->outDtype));
  if (toE4m3 && (a->outScale == 0 || a->residual || a->gate))
    return fail(
        DITRUN_INVALID_ARGUMENT,
        "ditrun_gemm writes e4m3 with a scale for each row (0x%llx) and without residual (0x%llx) and gate (0x%llx).",
        (unsigned long long)a->outScale, (unsigned long long)a->residual, (unsigned long long)a->gate);
  const auto addable = [&](int dtype) {
    return a->dtype == DITRUN_F16 ? dtype == DITRUN_F32 || dtype == DITRUN_F16 : isFloat(dtype);
  };
  if ((a->bias && !addable(a->biasDtype)) || (a->residual && !addable(a->residualDtype)))
    return fail(
        DITRUN_INVALID_ARGUMENT,
        "ditrun_gemm takes a bias and residual of f32, of bf16 unless A is f16, or of f16 where A is, not %s and %s.",
        dtypeName(a->biasDtype), dtypeName(a->residualDtype));
  if (a->activation < DITRUN_IDENTITY || a->activation > DITRUN_SILU)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_gemm knows no activation %d (0 identity, 1 gelu, 2 gelu tanh, 3 silu).", a->activation);
  if (a->kernel < 0 || a->kernel >= 2 + gemmSm90Tiles)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_gemm knows no kernel %d (0 the fastest, 1 cuBLASLt, 2 to %d the sm_90 tiles).", a->kernel,
                1 + gemmSm90Tiles);
  if (!a->a || !a->w || !a->out || (fp8 && (!a->aScale || !a->wScale)))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_gemm got a null address: A 0x%llx, W 0x%llx, out 0x%llx%s.",
                (unsigned long long)a->a, (unsigned long long)a->w, (unsigned long long)a->out,
                fp8 ? " (e4m3 also needs both scales)" : "");
  if (a->aScaleColumns != 0 && (!fp8 || a->aScaleColumns < 0 || a->k % a->aScaleColumns != 0 ||
                                a->activation != DITRUN_IDENTITY || !isFloat(a->outDtype)))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_gemm takes a scale for each %d columns of e4m3 rows that these divide, to f32 or bf16 without "
                "activation; got k %d, %s to %s, activation %d.",
                a->aScaleColumns, a->k, dtypeName(a->dtype), dtypeName(a->outDtype), a->activation);
  if (a->batch > 1 && a->outStride == 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_gemm got %d batches that all write to the same output.", a->batch);
  return DITRUN_OK;
}

static PlanKey keyOf(const ditrun_gemm_args &a, bool fuseBias, bool fuseResidual, bool outerScales, size_t workspace) {
  const int bytes = dtypeBytes(a.dtype), outBytes = dtypeBytes(a.outDtype);
  PlanKey key{};
  key.lda = a.lda;
  key.ldw = a.ldw;
  key.ldo = a.ldo;
  key.ldc = fuseResidual ? a.ldResidual : a.ldo;
  key.aStride = a.batch > 1 ? a.aStride : 0;
  key.wStride = a.batch > 1 ? a.wStride : 0;
  key.outStride = a.batch > 1 ? a.outStride : 0;
  key.cStride = a.batch == 1 ? 0 : fuseResidual ? a.residualStride : a.outStride;
  key.biasStride = fuseBias && a.batch > 1 ? a.biasStride : 0;
  key.workspace = int64_t(workspace);
  key.m = a.m;
  key.n = a.n;
  key.k = a.k;
  key.batch = a.batch;
  key.dtype = a.dtype;
  key.outDtype = a.outDtype;
  key.biasDtype = fuseBias ? a.biasDtype : 0;
  key.hasBias = fuseBias;
  key.hasResidual = fuseResidual;
  key.outerScales = outerScales;
  key.aAlign = alignmentOf(a.a, a.lda, key.aStride, bytes);
  key.wAlign = alignmentOf(a.w, a.ldw, key.wStride, bytes);
  key.outAlign = alignmentOf(a.out | (fuseBias ? a.bias : 0), a.ldo, key.outStride, outBytes);
  key.cAlign = fuseResidual ? alignmentOf(a.residual, a.ldResidual, key.cStride, outBytes) : key.outAlign;
  return key;
}

/** What is left for gemmFinish. */
struct Fusion {
  bool bias, residual, scales;
};

/** Finds how much of the epilogue cuBLASLt does itself: the first of these that it has a kernel for, from everything to
 * nothing. */
static int planMost(const ditrun_gemm_args &a, size_t workspace, Plan **plan, Fusion *fusion) {
  const bool fp8 = a.dtype == DITRUN_E4M3;
  // cuBLASLt adds a bias of the output's type (of bf16 after e4m3), and adds bias and C before any activation.
  const bool biasFits = a.bias && a.biasDtype == (fp8 ? int(DITRUN_BF16) : a.outDtype);
  const bool residualFits = a.residual && a.residualDtype == a.outDtype && a.activation == DITRUN_IDENTITY && !a.gate;
  const Fusion fusions[] = {
      {biasFits, residualFits, fp8}, {false, residualFits, fp8}, {false, false, fp8}, {false, false, false}};
  for (const Fusion &candidate : fusions) {
    TRY(planFor(keyOf(a, candidate.bias, candidate.residual, candidate.scales, workspace), plan));
    *fusion = candidate;
    if ((*plan)->found) return DITRUN_OK;
  }
  return fail(
      DITRUN_UNSUPPORTED,
      "cuBLASLt %s has no kernel for m %d, n %d, k %d, batch %d, %s to %s on compute capability %d.%d%s.",
      gemm.version.c_str(), a.m, a.n, a.k, a.batch, dtypeName(a.dtype), dtypeName(a.outDtype), deviceFacts().major,
      deviceFacts().minor,
      fp8 ? " (e4m3 needs 8.9 or newer, k, lda and ldw that are multiples of 16, and addresses aligned to 16 bytes)"
          : "");
}

/** One problem, or a strided batch of them, through cuBLASLt and, where needed, gemmFinish, which writes to `out` [m,
 * n] of outDtype with ldo. */
static int multiplyInto(const ditrun_gemm_args &a, uint64_t out, int outDtype, int64_t ldo, void *workspace,
                        cudaStream_t stream) {
  const bool fp8 = a.dtype == DITRUN_E4M3;
  const size_t workspaceBytes = workspace ? workspacePart : 0;
  Plan *plan = nullptr;
  Fusion fusion{};
  TRY(planMost(a, workspaceBytes, &plan, &fusion));
  const PlanKey key = keyOf(a, fusion.bias, fusion.residual, fusion.scales, workspaceBytes);
  if (fusion.bias) TRY(setDesc(*plan, key, DESC_BIAS_POINTER, &a.bias, sizeof a.bias));
  if (fusion.scales) {
    TRY(setDesc(*plan, key, DESC_A_SCALE_POINTER, &a.wScale, sizeof a.wScale));
    TRY(setDesc(*plan, key, DESC_B_SCALE_POINTER, &a.aScale, sizeof a.aScale));
  }
  const float beta = fusion.residual ? 1.0f : 0.0f;
  const void *c = asPointer<void>(fusion.residual ? a.residual : a.out);
  LT_TRY(gemm.lt.matmul(gemm.handle, plan->desc, &a.alpha, asPointer<void>(a.w), plan->a, asPointer<void>(a.a), plan->b,
                        &beta, c, plan->c, asPointer<void>(a.out), plan->d, &plan->choice.algo, workspace,
                        workspaceBytes, stream));

  const bool scalesLeft = fp8 && !fusion.scales, biasLeft = a.bias && !fusion.bias,
             residualLeft = a.residual && !fusion.residual;
  if (!scalesLeft && !biasLeft && !residualLeft && !a.gate && a.activation == DITRUN_IDENTITY && out == a.out)
    return DITRUN_OK;
  const bool batched = a.batch > 1;
  const GemmFinish finish{
      .out = asPointer<void>(out),
      .product = asPointer<void>(a.out),
      .rowScale = scalesLeft ? asPointer<float>(a.aScale) : nullptr,
      .columnScale = scalesLeft ? asPointer<float>(a.wScale) : nullptr,
      .gate = asPointer<float>(a.gate),
      .outScale = asPointer<float>(a.outScale),
      .bias = biasLeft ? asPointer<void>(a.bias) : nullptr,
      .residual = residualLeft ? asPointer<void>(a.residual) : nullptr,
      .ldo = ldo,
      .outStride = batched ? a.outStride : 0,
      .ldProduct = a.ldo,
      .productStride = batched ? a.outStride : 0,
      .biasStride = batched ? a.biasStride : 0,
      .ldResidual = a.ldResidual,
      .residualStride = batched ? a.residualStride : 0,
      .m = a.m,
      .n = a.n,
      .batch = a.batch,
      .productDtype = a.outDtype,
      .outDtype = outDtype,
      .biasDtype = a.biasDtype,
      .residualDtype = a.residualDtype,
      .activation = a.activation,
  };
  return gemmFinish(finish, stream);
}

static int multiply(const ditrun_gemm_args &a, cudaStream_t stream) {
  void *workspace = workspaceOf(stream);
  // cuBLASLt writes no f16 after bf16 or e4m3, and no e4m3 with a scale for each row: float32 goes to the workspace, as
  // below, and gemmFinish rounds it.
  const bool roundLater = (a.outDtype == DITRUN_F16 && a.dtype != DITRUN_F16) || a.outDtype == DITRUN_E4M3;
  if (!roundLater && (!a.residual || a.residual != a.out))
    return multiplyInto(a, a.out, a.outDtype, a.ldo, workspace, stream);
  Plan *plan = nullptr;
  Fusion fusion{};
  if (!roundLater) TRY(planMost(a, workspace ? workspacePart : 0, &plan, &fusion));
  if (fusion.residual) return multiplyInto(a, a.out, a.outDtype, a.ldo, workspace, stream);
  // cuBLASLt cannot add this residual in place: the product goes to the workspace, some rows at a time, and is added
  // from there.
  if (!workspace)
    return fail(DITRUN_UNSUPPORTED,
                "ditrun_gemm rounds to f16 or e4m3, or adds this residual in place (m %d, n %d, k %d, %s to %s, "
                "residual %s, activation %d, gate 0x%llx) through its workspace, which two other streams hold: "
                "use one of those streams, or give out another address than residual.",
                a.m, a.n, a.k, dtypeName(a.dtype), dtypeName(a.outDtype), dtypeName(a.residualDtype), a.activation,
                (unsigned long long)a.gate);
  const int productDtype = roundLater ? int(DITRUN_F32) : a.outDtype;
  // the scales of a part stay aligned
  const int64_t outBytes = dtypeBytes(a.outDtype), ld = (a.n + 7) / 8 * 8,
                most = int64_t(workspacePart) / (ld * dtypeBytes(productDtype)) / 128 * 128;
  if (most < 1)
    return fail(DITRUN_UNSUPPORTED,
                "ditrun_gemm rounds to f16 or e4m3, or adds this residual in place, through a workspace of %zu bytes, "
                "which 128 rows of n %d do not fit.",
                workspacePart, a.n);
  for (int b = 0; b < a.batch; b++)
    for (int64_t row = 0; row < a.m; row += most) {
      ditrun_gemm_args part = a;
      part.batch = 1;
      part.m = int32_t(std::min(most, a.m - row));
      part.a += uint64_t((b * a.aStride + row * a.lda) * dtypeBytes(a.dtype));
      part.w += uint64_t(b * a.wStride * dtypeBytes(a.dtype));
      if (part.aScale) part.aScale += uint64_t(row) * sizeof(float);
      if (part.outScale) part.outScale += uint64_t(row) * sizeof(float);
      if (part.bias) part.bias += uint64_t(b * a.biasStride * dtypeBytes(a.biasDtype));
      if (part.residual)
        part.residual += uint64_t((b * a.residualStride + row * a.ldResidual) * dtypeBytes(a.residualDtype));
      part.out = reinterpret_cast<uint64_t>(workspace);
      part.outDtype = productDtype;
      part.ldo = ld;
      const uint64_t out = a.out + uint64_t((b * a.outStride + row * a.ldo) * outBytes);
      TRY(multiplyInto(part, out, a.outDtype, a.ldo, nullptr, stream));
    }
  return DITRUN_OK;
}

int ditrun_gemm(const ditrun_gemm_args *args, uint64_t stream) {
  TRY(useDevice());
  TRY(checkArguments(args));
  if (args->m == 0) return DITRUN_OK;
  const int tile = args->kernel == 0 ? gemmSm90Choice(*args, gemm.fastAccumulate) : args->kernel - 2;
  if (tile >= 0 && gemmSm90Fits(*args, tile)) return gemmSm90(*args, tile, asStream(stream));
  if (args->kernel > 1)
    return fail(
        DITRUN_UNSUPPORTED,
        "The sm_90 tile %d does not take these arguments (m %d, n %d, k %d, %s to %s, activation %d): use kernel 0.",
        tile, args->m, args->n, args->k, dtypeName(args->dtype), dtypeName(args->outDtype), args->activation);
  if (args->aScaleColumns != 0)
    return fail(DITRUN_UNSUPPORTED,
                "ditrun_gemm has only a kernel for compute capability 9.0, 16-byte aligned rows and 128 columns of A "
                "to a scale; got %d (m %d, n %d, k %d, kernel %d) on %d.%d: give each row one scale.",
                args->aScaleColumns, args->m, args->n, args->k, args->kernel, deviceFacts().major, deviceFacts().minor);
  std::lock_guard<std::mutex> lock(gemmMutex);
  if (!gemm.ready)
    return fail(DITRUN_LIBRARY_MISSING, "%s",
                gemm.lt.library.problem.empty() ? "cuBLASLt was not opened." : gemm.lt.library.problem.c_str());
  if (args->dtype != DITRUN_E4M3 || args->batch == 1) return multiply(*args, asStream(stream));
  // Scales per row and column are one pair of vectors a call; an operand that all batches share has one vector of them.
  for (int b = 0; b < args->batch; b++) {
    ditrun_gemm_args one = *args;
    one.batch = 1;
    one.a += uint64_t(b * args->aStride);
    one.w += uint64_t(b * args->wStride);
    one.out += uint64_t(b * args->outStride * dtypeBytes(args->outDtype));
    one.aScale += uint64_t(args->aStride == 0 ? 0 : b) * uint64_t(args->m) * sizeof(float);
    one.wScale += uint64_t(args->wStride == 0 ? 0 : b) * uint64_t(args->n) * sizeof(float);
    if (one.bias) one.bias += uint64_t(b * args->biasStride * dtypeBytes(args->biasDtype));
    if (one.residual) one.residual += uint64_t(b * args->residualStride * dtypeBytes(args->residualDtype));
    if (one.outScale) one.outScale += uint64_t(b) * uint64_t(args->m) * sizeof(float);
    TRY(multiply(one, asStream(stream)));
  }
  return DITRUN_OK;
}
