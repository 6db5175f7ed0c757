// The Hopper attention kernel in e4m3 as the dispatcher sees it.
#pragma once

#include <cuda_runtime.h>

#include "ditrun.h"

/** Whether attention_fp8_sm90 takes these arguments, which attention/attention.cu has checked: e4m3, head dimension 32, 64 or 128, rows that the
 * copy engine can address (16-byte aligned starts and strides), scale > 0, and a device of compute capability 9.0. */
bool attention_fp8_sm90_fits(const ditrun_attention_args &args);

/** Queues the kernel; returns a ditrun_status. Allocates nothing and does not synchronise. */
int attention_fp8_sm90(const ditrun_attention_args &args, cudaStream_t stream);
