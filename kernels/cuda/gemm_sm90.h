// The Hopper GEMM as ditrun_gemm sees it.
#pragma once
#include "device.h"
#include "ditrun.h"

/** Rows of the table of tiles. */
constexpr int gemmSm90Tiles = 6;

/** Whether row `tile` of the tiles (gemm_sm90.cu) takes these arguments: bf16 or e4m3 on compute capability 9.0, rows that the copy engine can
 * address (16-byte aligned starts and strides), k small enough for a resident W, an activation only before bf16. */
bool gemmSm90Fits(const ditrun_gemm_args &args, int tile);

/** The fastest tile that fits, or -1 where cuBLASLt is faster or nothing fits. */
int gemmSm90Choice(const ditrun_gemm_args &args);

/** Queues the kernel; the arguments must fit. */
int gemmSm90(const ditrun_gemm_args &args, int tile, cudaStream_t stream);
