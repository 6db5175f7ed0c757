// 32-bit words in shared memory that order work across processes.
#pragma once

#include "stream.h"

namespace ditrun {

/** Waits until *flag == 1, then sees everything written before it was set. Throws Stopped when the stream ends. */
void waitFlag(uint64_t flag, Stream &stream);

}  // namespace ditrun
