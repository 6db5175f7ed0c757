// The Hopper attention kernel as the dispatcher sees it.
#pragma once

#include <cuda_runtime.h>

#include "ditrun.h"

/** Whether attention_sm90 takes these arguments: bf16, head dimension 32, 64 or 128, rows that the copy engine can address
 * (16-byte aligned starts and strides), scale > 0, and a device of compute capability 9.0. */
bool attention_sm90_fits(const ditrun_attention_args &args);

/** Queues the kernel; returns a ditrun_status. Allocates nothing and does not synchronise. */
int attention_sm90(const ditrun_attention_args &args, cudaStream_t stream);
