// Collective operations of threads: barriers, shuffles, votes.
#pragma once
#include <cstring>
#include <type_traits>

#include "block.h"

namespace cuda_on_cpu {

inline void sync_block(const Site& site) {
  Quiet quiet;
  meet(block->barrier, site, true, 0, 0);
}

inline Meeting& warp_meeting(uint32_t mask) {
  auto& meetings = block->warp_meetings[self->warp];
  for (auto& meeting : meetings)
    if (meeting->mask == mask) return *meeting;
  Meeting& meeting = *meetings.emplace_back(std::make_unique<Meeting>());
  meeting.mask = mask;
  meeting.first = self->warp * kWarp;
  meeting.members = std::min(kWarp, block->size - meeting.first);
  for (unsigned lane = 0; lane < meeting.members; ++lane) meeting.expected += mask >> lane & 1;
  return meeting;
}

struct Gathered {
  const uint64_t* value;  // of each participating lane
  uint32_t took_part;
};

inline Gathered gather(const Site& site, uint32_t mask, uint64_t value, bool orders_memory = false) {
  if (!(mask >> self->lane & 1)) fail(name(site) + " by lane " + std::to_string(self->lane) + ", outside its mask");
  Meeting& meeting = warp_meeting(mask);
  const unsigned round = meet(meeting, site, orders_memory, self->lane, value);
  return {meeting.value[round], meeting.took_part[round]};
}

inline uint32_t lanes(uint32_t mask = 0xffffffff) { return mask; }

inline void sync_warp(const Site& site, uint32_t mask) {
  Quiet quiet;
  gather(site, mask, 0, true);
}

inline uint32_t ballot(const Site& site, uint32_t mask, bool vote) {
  Quiet quiet;
  const Gathered votes = gather(site, mask, vote);
  uint32_t result = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if (votes.took_part >> lane & 1) result |= uint32_t(votes.value[lane]) << lane;
  return result;
}

inline int any(const Site& site, uint32_t mask, bool vote) { return ballot(site, mask, vote) != 0; }
inline int all(const Site& site, uint32_t mask, bool vote) { return ballot(site, mask, !vote) == 0; }

template <class T>
T shuffle(const Site& site, uint32_t mask, T value, unsigned source) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles 32 and 64 bits");
  Quiet quiet;
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const Gathered gathered = gather(site, mask, bits);
  if (!(gathered.took_part >> source & 1))
    fail(name(site) + " reads lane " + std::to_string(source) + ", which does not participate");
  std::memcpy(&value, &gathered.value[source], sizeof value);
  return value;
}

// The first lane of the running thread's group of `width` lanes.
inline int group(const Site& site, int width) {
  if (width < 1 || width > int(kWarp) || (width & (width - 1)))
    fail(name(site) + " with width " + std::to_string(width));
  return int(self->lane) & -width;
}

// The shuffle operations. A lane outside the group is replaced by the thread's own lane; shuffle_index wraps around
// instead.
template <class T>
T shuffle_index(const Site& site, uint32_t mask, T value, int source, int width = kWarp) {
  return shuffle(site, mask, value, group(site, width) + (source & (width - 1)));
}

template <class T>
T shuffle_xor(const Site& site, uint32_t mask, T value, int lanes, int width = kWarp) {
  const int source = int(self->lane) ^ lanes, end = group(site, width) + width;
  return shuffle(site, mask, value, source >= 0 && source < end ? source : int(self->lane));
}

template <class T>
T shuffle_down(const Site& site, uint32_t mask, T value, unsigned delta, int width = kWarp) {
  const unsigned end = group(site, width) + width, source = self->lane + delta;
  return shuffle(site, mask, value, delta < kWarp && source < end ? source : self->lane);
}

template <class T>
T shuffle_up(const Site& site, uint32_t mask, T value, unsigned delta, int width = kWarp) {
  const unsigned begin = group(site, width);
  return shuffle(site, mask, value, delta <= self->lane - begin ? self->lane - delta : self->lane);
}

}  // namespace cuda_on_cpu
