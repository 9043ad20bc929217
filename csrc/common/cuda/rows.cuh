// A row of n values, spread over the threads of a team, by where it is kept: in registers, in shared memory, or only
// where it came from (read again on every pass). All three answer
//   each(f)            f(x) for every value of this thread
//   shift(top, scale)  x becomes (x − top)·scale
//   store(out, f)      out[i] = f(x)
// so that an algorithm over rows is written once. A thread sees its own values alone: none of this needs a barrier.
#pragma once
#include "team.cuh"
#include "types.cuh"

namespace automl_ext {

// A sum in double, whose terms go through a short chain of additions in C first.
template <class C>
struct Sum {
  static constexpr int longest_chain = 64;
  double total = 0;
  C chain = 0;
  int pending = 0;
  __device__ __forceinline__ void add(C x) {
    chain += x;
    if (++pending == longest_chain) flush();
  }
  __device__ __forceinline__ void flush() {
    total += double(chain);
    chain = 0;
    pending = 0;
  }
  __device__ __forceinline__ double value() {
    flush();
    return total;
  }
};

// A row in memory, seen by one thread of the team. In packs where alignment allows, else in turns: neighbouring threads
// read neighbouring elements either way.
template <class T, class Team>
struct MemoryRow {
  static constexpr int width = pack_width<T, 8>();
  using Values = Pack<T, width>;
  const Team team;
  const int64_t n;
  const bool packed;

  // f(i) for every index of this thread.
  template <class F>
  __device__ __forceinline__ void each_index(const F& f) const {
    if (packed) {
      for (int64_t i = int64_t(team.rank()) * width; i < n; i += int64_t(team.size()) * width) {
#pragma unroll
        for (int k = 0; k < width; ++k) f(i + k);
      }
    } else {
      for (int64_t i = team.rank(); i < n; i += team.size()) f(i);
    }
  }
  // f(i, in[i]) for every index of this thread.
  template <class F>
  __device__ __forceinline__ void read(const T* in, const F& f) const {
    if (packed) {
      for (int64_t i = int64_t(team.rank()) * width; i < n; i += int64_t(team.size()) * width) {
        const Values pack = *reinterpret_cast<const Values*>(in + i);
#pragma unroll
        for (int k = 0; k < width; ++k) f(i + k, widen(pack.values[k]));
      }
    } else {
      for (int64_t i = team.rank(); i < n; i += team.size()) f(i, widen(in[i]));
    }
  }
  // out[i] = f(i) for every index of this thread.
  template <class F>
  __device__ __forceinline__ void write(T* out, const F& f) const {
    if (packed) {
      for (int64_t i = int64_t(team.rank()) * width; i < n; i += int64_t(team.size()) * width) {
        Values pack;
#pragma unroll
        for (int k = 0; k < width; ++k) pack.values[k] = narrow<T>(f(i + k));
        *reinterpret_cast<Values*>(out + i) = pack;
      }
    } else {
      for (int64_t i = team.rank(); i < n; i += team.size()) out[i] = narrow<T>(f(i));
    }
  }
};

// Up to Team::size()·kItems values in registers. In packs, item j of a thread is element
// (j / width·size + rank)·width + j % width; else j·size + rank. Items beyond the row hold `fill`.
template <class T, class Team, int kItems>
struct RegisterRow {
  using C = Compute<T>;
  static constexpr int width = pack_width<T, kItems>();
  static constexpr int longest_chain = kItems;
  using Values = Pack<T, width>;
  const Team team;
  const int n;  // 0 for a row that is not there
  const bool packed;
  C values[kItems];

  __device__ __forceinline__ RegisterRow(const Team& team_, const T* row, int n_, bool packed_, C fill)
      : team(team_), n(n_), packed(packed_) {
    if (packed) {
#pragma unroll
      for (int j = 0; j < kItems; j += width) {
        const int i = (j / width * team.size() + team.rank()) * width;
        Values pack{};
        if (i < n) pack = *reinterpret_cast<const Values*>(row + i);
#pragma unroll
        for (int k = 0; k < width; ++k) values[j + k] = i < n ? C(widen(pack.values[k])) : fill;
      }
    } else {
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        const int i = j * team.size() + team.rank();
        values[j] = i < n ? C(widen(row[i])) : fill;
      }
    }
  }
  template <class F>
  __device__ __forceinline__ void each(const F& f) const {
#pragma unroll
    for (int j = 0; j < kItems; ++j) f(values[j]);
  }
  __device__ __forceinline__ void shift(C top, C scale) {
#pragma unroll
    for (int j = 0; j < kItems; ++j) values[j] = (values[j] - top) * scale;
  }
  template <class F>
  __device__ __forceinline__ void store(T* out, const F& f) const {
    store_items(out, [&](int j) { return f(values[j]); });
  }
  // out at item j = f(j), for what is computed from several rows.
  template <class F>
  __device__ __forceinline__ void store_items(T* out, const F& f) const {
    if (packed) {
#pragma unroll
      for (int j = 0; j < kItems; j += width) {
        const int i = (j / width * team.size() + team.rank()) * width;
        Values pack;
#pragma unroll
        for (int k = 0; k < width; ++k) pack.values[k] = narrow<T>(f(j + k));
        if (i < n) *reinterpret_cast<Values*>(out + i) = pack;
      }
    } else {
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        const int i = j * team.size() + team.rank();
        if (i < n) out[i] = narrow<T>(f(j));
      }
    }
  }
};

// In shared memory, n values of the type computed in.
template <class T, class Team>
struct SharedRow {
  using C = Compute<T>;
  static constexpr int longest_chain = Sum<C>::longest_chain;
  const MemoryRow<T, Team> memory;
  C* const values;

  __device__ __forceinline__ SharedRow(const Team& team, const T* row, int64_t n, bool packed, C* values_)
      : memory{team, n, packed}, values(values_) {
    memory.read(row, [&](int64_t i, C x) { values[i] = x; });
  }
  template <class F>
  __device__ __forceinline__ void each(const F& f) const {
    memory.each_index([&](int64_t i) { f(values[i]); });
  }
  __device__ __forceinline__ void shift(C top, C scale) {
    memory.each_index([&](int64_t i) { values[i] = (values[i] - top) * scale; });
  }
  template <class F>
  __device__ __forceinline__ void store(T* out, const F& f) const {
    memory.write(out, [&](int64_t i) { return f(values[i]); });
  }
};

// In global memory.
template <class T, class Team>
struct GlobalRow {
  using C = Compute<T>;
  static constexpr int longest_chain = Sum<C>::longest_chain;
  const MemoryRow<T, Team> memory;
  const T* const row;
  C top = 0, scale = 1;

  __device__ __forceinline__ GlobalRow(const Team& team, const T* row_, int64_t n, bool packed)
      : memory{team, n, packed}, row(row_) {}
  template <class F>
  __device__ __forceinline__ void each(const F& f) const {
    memory.read(row, [&](int64_t, C x) { f((x - top) * scale); });
  }
  __device__ __forceinline__ void shift(C top_, C scale_) {
    top = top_;
    scale = scale_;
  }
  template <class F>
  __device__ __forceinline__ void store(T* out, const F& f) const {
    memory.write(out, [&](int64_t i) { return f((widen(row[i]) - top) * scale); });
  }
};

}  // namespace automl_ext
