// The attention kernels of this module; attention/attention.cu checks the arguments and chooses one.
#pragma once
#include <cuda_runtime.h>

#include "ditrun.h"

// Each queues its kernel and returns a ditrun_status; none allocates or synchronises. Those of Hopper take compute
// capability 9.0 alone, head dimensions of 32, 64 or 128, a positive scale, and rows that the copy engine can address
// (16-byte aligned starts and strides).

/** bf16. */
bool attentionSm90Fits(const ditrun_attention_args &args);
int attentionSm90(const ditrun_attention_args &args, cudaStream_t stream);

/** f16. */
bool attentionF16Sm90Fits(const ditrun_attention_args &args);
int attentionF16Sm90(const ditrun_attention_args &args, cudaStream_t stream);

/** e4m3. */
bool attentionFp8Sm90Fits(const ditrun_attention_args &args);
int attentionFp8Sm90(const ditrun_attention_args &args, cudaStream_t stream);

/** bf16, head dims that are multiples of 8 up to 128, a positive scale, rows and addresses aligned to 16 bytes. */
bool attentionSm80Fits(const ditrun_attention_args &args);
int attentionSm80(const ditrun_attention_args &args, cudaStream_t stream);

/** f32, bf16, f16 or e4m3, head dims up to 256, float32 arithmetic. */
bool attentionGenericFits(const ditrun_attention_args &args);
int attentionGeneric(const ditrun_attention_args &args, cudaStream_t stream);
