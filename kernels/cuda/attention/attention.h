// The attention kernels of this module; attention/attention.cu checks the arguments and chooses one.
#pragma once
#include <cuda_runtime.h>

#include "ditrun.h"

bool attention_sm90_fits(const ditrun_attention_args &args);
int attention_sm90(const ditrun_attention_args &args, cudaStream_t stream);
bool attention_f16_sm90_fits(const ditrun_attention_args &args);
int attention_f16_sm90(const ditrun_attention_args &args, cudaStream_t stream);
bool attention_fp8_sm90_fits(const ditrun_attention_args &args);
int attention_fp8_sm90(const ditrun_attention_args &args, cudaStream_t stream);

/** bf16, head dims that are multiples of 8 up to 128, a positive scale, rows and addresses aligned to 16 bytes. */
bool attentionSm80Fits(const ditrun_attention_args &args);
int attentionSm80(const ditrun_attention_args &args, cudaStream_t stream);

/** f32, bf16, f16 or e4m3, head dims up to 256, float32 arithmetic. */
bool attentionGenericFits(const ditrun_attention_args &args);
int attentionGeneric(const ditrun_attention_args &args, cudaStream_t stream);
