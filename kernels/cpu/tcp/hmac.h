// What the ranks of a communicator prove to each other with: a shared secret, random numbers and HMAC-SHA-256.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ditrun {

using Digest = std::array<uint8_t, 32>;

/** SHA-256 (FIPS 180-4). */
Digest sha256(const uint8_t *message, size_t bytes);
/** HMAC-SHA-256 (RFC 2104) under a key of 32 bytes. */
Digest hmacSha256(const Digest &key, const uint8_t *message, size_t bytes);
/** Takes the same time wherever the first difference is. */
bool equalDigests(const Digest &one, const Digest &other);
/** From the system's generator. Throws where it gives none. */
Digest randomDigest();

}  // namespace ditrun
