// ditrun_attention: checks, and the choice of a kernel.
#include "attention/attention.h"

#include "runtime/device.h"
#include "runtime/numbers.cuh"

static int checkBlocks(const ditrun_attention_args &a) {
  if (a.blockCount <= 0 || a.blockCount > DITRUN_MAX_KV_BLOCKS || !a.blocks)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_attention walks 1 to %d blocks of keys and values, got %d.",
                DITRUN_MAX_KV_BLOCKS, a.blockCount);
  const int64_t rowWidth = int64_t(a.heads) * a.headDim;
  const bool e4m3 = a.dtype == DITRUN_E4M3;
  for (int i = 0; i < a.blockCount; i++) {
    const ditrun_kv_block &block = a.blocks[i];
    // Values in e4m3 are transposed: their rows are as long as the padded keys.
    const int64_t padded = (int64_t(block.length) + DITRUN_FP8_KEYS - 1) / DITRUN_FP8_KEYS * DITRUN_FP8_KEYS;
    if (block.length <= 0 || !block.k || !block.v || block.kStride < rowWidth ||
        (e4m3 ? block.vStride != padded : block.vStride < rowWidth))
      return fail(
          DITRUN_INVALID_ARGUMENT,
          "ditrun_attention: block %d has %d keys with strides %lld and %lld for %d heads of %d, k 0x%llx, v 0x%llx.",
          i, block.length, (long long)block.kStride, (long long)block.vStride, a.heads, a.headDim,
          (unsigned long long)block.k, (unsigned long long)block.v);
    if ((block.kScale != 0) != e4m3 || block.kScale % 4 != 0)
      return fail(DITRUN_INVALID_ARGUMENT,
                  "ditrun_attention: block %d of keys in %s has scales at 0x%llx; e4m3 keys need scales and no others "
                  "take any.",
                  i, dtypeName(a.dtype), (unsigned long long)block.kScale);
    if (block.flag % 4 != 0)
      return fail(DITRUN_INVALID_ARGUMENT, "ditrun_attention: the flag 0x%llx of block %d is no 32-bit word.",
                  (unsigned long long)block.flag, i);
  }
  return DITRUN_OK;
}

static int check(const ditrun_attention_args *args) {
  if (!args) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_attention got no arguments.");
  const ditrun_attention_args &a = *args;
  if (a.queries < 0 || a.heads <= 0 || a.headDim <= 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_attention got %d queries, %d heads of %d.", a.queries, a.heads,
                a.headDim);
  const int64_t rowWidth = int64_t(a.heads) * a.headDim;
  if (a.queries > 0 && (!a.q || !a.o || a.qStride < rowWidth || a.oStride < rowWidth))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_attention got q 0x%llx and o 0x%llx with row strides %lld and %lld for %d heads of %d.",
                (unsigned long long)a.q, (unsigned long long)a.o, (long long)a.qStride, (long long)a.oStride, a.heads,
                a.headDim);
  const bool e4m3 = a.dtype == DITRUN_E4M3, toE4m3 = a.oDtype == DITRUN_E4M3;
  if (!(isFloat(a.dtype) || a.dtype == DITRUN_F16 || e4m3) ||
      !(isFloat(a.oDtype) || (toE4m3 && (e4m3 || a.dtype == DITRUN_BF16))))
    return fail(
        DITRUN_INVALID_ARGUMENT,
        "ditrun_attention takes f32, bf16, f16 or e4m3 and writes f32, bf16 or, from bf16 or e4m3, e4m3; got %s to %s.",
        dtypeName(a.dtype), dtypeName(a.oDtype));
  if ((a.qScale != 0) != e4m3 || (a.vScale != 0) != e4m3 || a.qScale % 4 != 0 || a.vScale % 4 != 0)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_attention got queries in %s with scales of q at 0x%llx and of v at 0x%llx; e4m3 needs both and "
                "no other dtype takes any.",
                dtypeName(a.dtype), (unsigned long long)a.qScale, (unsigned long long)a.vScale);
  if ((a.oScale != 0) != toE4m3 || a.oScale % 4 != 0 || a.workspace % 16 != 0 || a.workspaceBytes < 0 ||
      (a.workspaceBytes > 0 && !a.workspace))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_attention got a scale for rows of o in %s at 0x%llx (e4m3 needs one, nothing else takes one) "
                "and a workspace of %lld bytes at 0x%llx.",
                dtypeName(a.oDtype), (unsigned long long)a.oScale, (long long)a.workspaceBytes,
                (unsigned long long)a.workspace);
  if ((a.previousO == 0) != (a.previousLse == 0))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_attention merges with a previous output and its lse together, got 0x%llx and 0x%llx.",
                (unsigned long long)a.previousO, (unsigned long long)a.previousLse);
  if (a.relativeBias % 4 != 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_attention: the relative bias 0x%llx is no address of float32.",
                (unsigned long long)a.relativeBias);
  if (a.heads > 65535)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_attention takes at most 65535 heads, got %d.", a.heads);
  return checkBlocks(a);
}

static int choose(const ditrun_attention_args *args, cudaStream_t queue) {
#ifdef DITRUN_ATTENTION_SM90
  const bool sm90 = deviceFacts().major == 9 && attentionSm90Fits(*args);
  if (sm90 && (args->kernel == 0 || args->kernel == 3)) return attentionSm90(*args, queue);
  const bool f16Sm90 = deviceFacts().major == 9 && attentionF16Sm90Fits(*args);
  if (f16Sm90 && (args->kernel == 0 || args->kernel == 3)) return attentionF16Sm90(*args, queue);
  const bool fp8Sm90 = deviceFacts().major == 9 && attentionFp8Sm90Fits(*args);
  if (fp8Sm90 && (args->kernel == 0 || args->kernel == 3)) return attentionFp8Sm90(*args, queue);
#endif
  const bool sm80 = attentionSm80Fits(*args), generic = attentionGenericFits(*args);
  if (sm80 && (args->kernel == 0 || args->kernel == 2)) return attentionSm80(*args, queue);
  if (generic && (args->kernel == 0 || args->kernel == 1)) return attentionGeneric(*args, queue);
  static const char *const names[] = {"any", "the generic", "the sm_80", "the sm_90"};
  return fail(DITRUN_UNSUPPORTED,
              "%s attention kernel does not take head dim %d in %s with row strides %lld and %lld%s on compute "
              "capability %d.%d.",
              args->kernel >= 0 && args->kernel <= 3 ? names[args->kernel] : "an unknown", args->headDim,
              dtypeName(args->dtype), (long long)args->qStride, (long long)args->blocks[0].kStride,
              args->relativeBias ? " and a relative bias" : "", deviceFacts().major, deviceFacts().minor);
}

int ditrun_attention(const ditrun_attention_args *args, uint64_t stream) {
  TRY(useDevice());
  TRY(check(args));
  if (args->queries == 0) return DITRUN_OK;
  uint64_t flags[DITRUN_MAX_KV_BLOCKS];
  int flagCount = 0;
  for (int i = 0; i < args->blockCount; i++)
    if (args->blocks[i].flag) flags[flagCount++] = args->blocks[i].flag;
  if (flagCount == 0 || !sharesDevice()) return choose(args, asStream(stream));

  // Ranks that share a GPU: copies within one GPU are kernels of the driver, whatever the call, and find no
  // multiprocessor beside a kernel that fills the GPU and waits for them. So the stream waits here, and the kernel does
  // not (nor does it count).
  TRY(ditrun_flags_wait(flags, flagCount, 0, stream));
  ditrun_kv_block arrived[DITRUN_MAX_KV_BLOCKS];
  for (int i = 0; i < args->blockCount; i++) {
    arrived[i] = args->blocks[i];
    arrived[i].flag = 0;
  }
  ditrun_attention_args ready = *args;
  ready.blocks = arrived;
  return choose(&ready, asStream(stream));
}
