// Rows as files store them, decoded.
#pragma once
#include "runtime/device.h"

/** Queues the decoding of rows whose arguments have been checked. @return a ditrun_status */
int launchDecode(const ditrun_decode_args &args, cudaStream_t stream);
