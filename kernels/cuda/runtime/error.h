// How every function of this module reports a failure: a sentence and a status to return.
#pragma once
#include "ditrun.h"

/** Stores the sentence for ditrun_last_error() and returns status. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int fail(int status, const char *format, ...);
