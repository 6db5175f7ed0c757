// Which of this host's addresses other ranks are told.
#include <ifaddrs.h>
#include <net/if.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "runtime/error.h"
#include "tcp/socket.h"

namespace ditrun {
namespace {

std::string variable(const char *name) {
  const char *const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<std::string> separated(const std::string &list) {
  std::vector<std::string> parts(1);
  for (const char c : list) {
    if (c == ',') parts.emplace_back();
    else parts.back() += c;
  }
  return parts;
}

/** NCCL's rule (user guide, NCCL_SOCKET_IFNAME): [^][=]name,name… */
bool isChosen(const std::string &name, std::string rule) {
  const auto takes = [&rule](char sign) {
    const bool there = !rule.empty() && rule.front() == sign;
    if (there) rule.erase(0, 1);
    return there;
  };
  const bool others = takes('^');
  const bool exact = takes('=');
  const std::vector<std::string> names = separated(rule);
  const bool named = std::any_of(names.begin(), names.end(), [&](const std::string &each) {
    return !each.empty() && (exact ? name == each : name.compare(0, each.size(), each) == 0);
  });
  return named != others;
}

/** The interface's address without a port; family 0 where it is none that other hosts could use. */
Address usableAddress(const sockaddr *given) {
  Address address;
  if (given == nullptr) return address;
  if (given->sa_family == AF_INET) {
    address.family = 4;
    std::memcpy(address.bytes, &reinterpret_cast<const sockaddr_in *>(given)->sin_addr, 4);
  } else if (given->sa_family == AF_INET6) {
    const in6_addr &in = reinterpret_cast<const sockaddr_in6 *>(given)->sin6_addr;
    // A link-local address means something only beside the name of an interface of the host that uses it.
    if (IN6_IS_ADDR_LINKLOCAL(&in)) return address;
    address.family = 6;
    std::memcpy(address.bytes, &in, 16);
  }
  return address;
}

Address loopback(int family) {
  Address address;
  address.family = uint8_t(family);
  if (family == 4) {
    address.bytes[0] = 127;
    address.bytes[3] = 1;
  } else {
    address.bytes[15] = 1;
  }
  return address;
}

}  // namespace

Address reachableAddress() {
  const std::string rule = variable("NCCL_SOCKET_IFNAME");
  const std::string wanted = variable("NCCL_SOCKET_FAMILY");
  const int family = wanted == "AF_INET6" ? 6 : wanted == "AF_INET" ? 4 : 0;
  if (rule.empty()) return loopback(family == 0 ? 4 : family);
  ifaddrs *found = nullptr;
  if (getifaddrs(&found) != 0) throw Failure(DITRUN_DEVICE_ERROR, "This host's network interfaces cannot be listed.");
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(found, freeifaddrs);
  Address best;
  std::vector<std::string> names;
  for (const ifaddrs *each = found; each != nullptr; each = each->ifa_next) {
    const Address address = usableAddress(each->ifa_addr);
    if (address.family == 0 || (each->ifa_flags & IFF_UP) == 0 || (family != 0 && family != address.family)) continue;
    if (std::find(names.begin(), names.end(), each->ifa_name) == names.end()) names.emplace_back(each->ifa_name);
    if (!isChosen(each->ifa_name, rule)) continue;
    if (best.family == 0 || (best.family == 6 && address.family == 4)) best = address;
  }
  if (best.family != 0) return best;
  std::string list;
  for (const std::string &name : names) list += (list.empty() ? "" : ", ") + name;
  refuse("NCCL_SOCKET_IFNAME is ", rule, ", but no interface of such a name is up and has an address",
         family == 0 ? "" : sentence(" of ", wanted), ": this host has ", list.empty() ? "none" : list, ".");
}

}  // namespace ditrun
