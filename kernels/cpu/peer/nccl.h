#pragma once

namespace ditrun {

/** Of the library behind the collectives; null where there is none. */
const char *ncclVersion();

}  // namespace ditrun
