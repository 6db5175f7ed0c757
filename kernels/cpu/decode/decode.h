// Rows as files store them, decoded.
#pragma once

#include "ditrun.h"

namespace ditrun {

/** Decodes all of it on this thread. The arguments have been checked. */
void decodeRows(const ditrun_decode_args &args);

}  // namespace ditrun
