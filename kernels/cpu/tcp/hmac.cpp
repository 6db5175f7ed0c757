#include "tcp/hmac.h"

#include <sys/random.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <vector>

#include "runtime/error.h"

namespace ditrun {
namespace {

constexpr size_t blockBytes = 64;
using State = std::array<uint32_t, 8>;

// Of cube and square roots of the first primes: FIPS 180-4, 4.2.2 and 5.3.3.
constexpr std::array<uint32_t, 64> roundConstants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
constexpr State initialState = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

void compress(State &state, const uint8_t *block) {
  std::array<uint32_t, 64> w;
  for (size_t i = 0; i < 16; i++) {
    const uint8_t *const at = block + 4 * i;
    w[i] = uint32_t(at[0]) << 24 | uint32_t(at[1]) << 16 | uint32_t(at[2]) << 8 | at[3];
  }
  for (size_t i = 16; i < 64; i++) {
    const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t i = 0; i < 64; i++) {
    const uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t first = h + s1 + ((e & f) ^ (~e & g)) + roundConstants[i] + w[i];
    const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t second = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + first;
    d = c;
    c = b;
    b = a;
    a = first + second;
  }
  const State added = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < state.size(); i++) state[i] += added[i];
}

}  // namespace

Digest sha256(const uint8_t *message, size_t bytes) {
  std::vector<uint8_t> padded(message, message + bytes);
  padded.push_back(0x80);
  while (padded.size() % blockBytes != blockBytes - 8) padded.push_back(0);
  for (int shift = 56; shift >= 0; shift -= 8) padded.push_back(uint8_t(uint64_t(bytes) * 8 >> shift));
  State state = initialState;
  for (size_t at = 0; at < padded.size(); at += blockBytes) compress(state, padded.data() + at);
  Digest digest;
  for (size_t i = 0; i < digest.size(); i++) digest[i] = uint8_t(state[i / 4] >> (24 - 8 * (i % 4)));
  return digest;
}

Digest hmacSha256(const Digest &key, const uint8_t *message, size_t bytes) {
  const auto keyed = [&key](uint8_t mask) {
    std::vector<uint8_t> block(blockBytes, mask);
    for (size_t i = 0; i < key.size(); i++) block[i] ^= key[i];
    return block;
  };
  std::vector<uint8_t> inner = keyed(0x36);
  inner.insert(inner.end(), message, message + bytes);
  const Digest innerDigest = sha256(inner.data(), inner.size());
  std::vector<uint8_t> outer = keyed(0x5c);
  outer.insert(outer.end(), innerDigest.begin(), innerDigest.end());
  return sha256(outer.data(), outer.size());
}

bool equalDigests(const Digest &one, const Digest &other) {
  uint8_t differences = 0;
  for (size_t i = 0; i < one.size(); i++) differences |= uint8_t(one[i] ^ other[i]);
  return differences == 0;
}

Digest randomDigest() {
  Digest digest;
  if (getrandom(digest.data(), digest.size(), 0) == ssize_t(digest.size())) return digest;
  throw Failure(DITRUN_DEVICE_ERROR, sentence("The system gives no random numbers: ", std::strerror(errno), "."));
}

}  // namespace ditrun
