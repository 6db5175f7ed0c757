// The Hopper GEMM as ditrun_gemm sees it.
#pragma once
#include "runtime/device.h"
#include "ditrun.h"

/** Rows of the table of tiles. */
constexpr int gemmSm90Tiles = 7;

/** Whether row `tile` of the tiles (gemm/sm90.cu) takes these arguments: bf16 or e4m3 on compute capability 9.0, rows
 * that the copy engine can address (16-byte aligned starts and strides), k small enough for a resident W; an activation
 * only before bf16 and without a gate, and no SiLU; a residual of float32 to float32. */
bool gemmSm90Fits(const ditrun_gemm_args &args, int tile);

/** The tile to use by the measurements in tiles/tiles.h, or -1 where cuBLASLt is faster or nothing fits.
 * fastAccumulate: e4m3 sums may stay at 13 bits for any k (for k up to 512 they do in any case). */
int gemmSm90Choice(const ditrun_gemm_args &args, bool fastAccumulate);

/** Queues the kernel; the arguments must fit. */
int gemmSm90(const ditrun_gemm_args &args, int tile, cudaStream_t stream);
