// Failures: thrown inside the module as one sentence, turned into a status at the C boundary.
#pragma once

#include <cstdint>
#include <exception>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>

#include "ditrun.h"

namespace ditrun {

struct Failure : std::runtime_error {
  int status;
  Failure(int failureStatus, const std::string &sentence) : std::runtime_error(sentence), status(failureStatus) {}
};

template <class... Parts>
std::string sentence(const Parts &...parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

template <class... Parts>
[[noreturn]] void refuse(const Parts &...parts) {
  throw Failure(DITRUN_INVALID_ARGUMENT, sentence(parts...));
}

/** Throws DITRUN_INVALID_ARGUMENT with the sentence made of `parts` unless `holds`. */
template <class... Parts>
void require(bool holds, const Parts &...parts) {
  if (!holds) refuse(parts...);
}

/** Keeps the sentence for ditrun_last_error; returns the status. */
int remember(int status, const std::string &text) noexcept;
void forget() noexcept;

/** Runs the body of an exported function: no exception crosses the C boundary. */
template <class Body>
int guarded(Body &&body) noexcept {
  try {
    body();
    forget();
    return DITRUN_OK;
  } catch (const Failure &failure) {
    return remember(failure.status, failure.what());
  } catch (const std::bad_alloc &) {
    return remember(DITRUN_OUT_OF_MEMORY, "The host has no memory left for the CPU module's own buffers.");
  } catch (const std::exception &error) {
    return remember(DITRUN_DEVICE_ERROR, error.what());
  }
}

}  // namespace ditrun
