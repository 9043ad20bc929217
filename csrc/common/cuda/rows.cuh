// A row of n values shared by the threads of a team. The classes differ in where the values are: in registers, in shared
// memory, or in global memory (read again on every pass). Interface, implemented only where used:
//   each(f)                      f(x) for every value of this thread
//   each_indexed(f)              f(i, x), i rising within a thread
//   shift(top, scale)            x becomes (x − top)·scale
//   exponentiate(top, scale, f)  x becomes e = exp((x − top)·scale); f(e)
//   store(out, f)                out[i] = f(x)
//   write(out, f)                out[i] = f(i)
// An algorithm over rows is written once for all classes. Each thread accesses only its own values: no barrier is needed.
#pragma once
#include "team.cuh"
#include "types.cuh"

namespace automl_ext {

// Sums of the values of one thread. ShortSum adds a few terms in C. Sum adds any number of terms in double, after short
// chains of additions in C.
template <class C>
struct ShortSum {
  C total = 0;
  __device__ __forceinline__ void add(C x) { total += x; }
  __device__ __forceinline__ C value() const { return total; }
};
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

// A row of n elements in memory, as accessed by one thread of the team: in packs of adjacent elements if the alignment
// allows, else single elements with the stride of the team. Both are coalesced.
template <class T, class Team>
struct MemoryRow {
  static constexpr int width = pack_width<T, 8>();
  const Team team;
  const int64_t n;
  const bool packed;

  // f(i, in[i]…) for every index of this thread. `in` may have another type than T, with the alignment of its packs.
  template <class F, class... In>
  __device__ __forceinline__ void read(const F& f, const In*... in) const {
    if (packed) {
      for (int64_t i = int64_t(team.rank()) * width; i < n; i += int64_t(team.size()) * width)
        each_of_packs([&](int k, auto... x) { f(i + k, x...); }, *reinterpret_cast<const Pack<In, width>*>(in + i)...);
    } else {
      for (int64_t i = team.rank(); i < n; i += team.size()) f(i, widen(in[i])...);
    }
  }
  // out[i] = f(i) for every index of this thread.
  template <class F>
  __device__ __forceinline__ void write(T* out, const F& f) const {
    if (packed) {
      for (int64_t i = int64_t(team.rank()) * width; i < n; i += int64_t(team.size()) * width) {
        Pack<T, width> pack;
#pragma unroll
        for (int k = 0; k < width; ++k) pack.values[k] = narrow<T>(f(i + k));
        *reinterpret_cast<Pack<T, width>*>(out + i) = pack;
      }
    } else {
      for (int64_t i = team.rank(); i < n; i += team.size()) out[i] = narrow<T>(f(i));
    }
  }
  // out[i] = f(in[i]…) for every index of this thread; in and out may be the same.
  template <class Out, class F, class... In>
  __device__ __forceinline__ void map(Out* out, const F& f, const In*... in) const {
    if (packed) {
      for (int64_t i = int64_t(team.rank()) * width; i < n; i += int64_t(team.size()) * width) {
        Pack<Out, width> result;
        each_of_packs([&](int k, auto... x) { result.values[k] = narrow<Out>(f(x...)); },
                      *reinterpret_cast<const Pack<In, width>*>(in + i)...);
        *reinterpret_cast<Pack<Out, width>*>(out + i) = result;
      }
    } else {
      for (int64_t i = team.rank(); i < n; i += team.size()) out[i] = narrow<Out>(f(widen(in[i])...));
    }
  }

 private:
  template <class F, class... Packs>
  static __device__ __forceinline__ void each_of_packs(const F& f, const Packs&... packs) {
#pragma unroll
    for (int k = 0; k < width; ++k) f(k, widen(packs.values[k])...);
  }
};

// Up to Team::size()·kItems values in registers. In packs, item j of a thread is element
// (j / width·size + rank)·width + j % width; else j·size + rank. Items beyond the row hold `fill`.
template <class T, class Team, int kItems>
struct RegisterRow {
  using C = Compute<T>;
  using Index = int;
  static constexpr int width = pack_width<T, kItems>();
  static constexpr int longest_chain = kItems;
  using Accumulator = ShortSum<C>;
  using Total = std::conditional_t<(kItems <= 4), C, double>;  // type of a sum over the team
  using Scalar = C;                                            // type of values computed once per row
  const Team team;
  const int n;  // 0 for a missing row
  const bool packed;
  C values[kItems];

  // `row` may have another type than T, with the alignment of its packs.
  template <class In>
  __device__ __forceinline__ RegisterRow(const Team& team_, const In* row, int n_, bool packed_,
                                         C fill = -infinity<C>())
      : team(team_), n(n_), packed(packed_) {
    if (packed) {
#pragma unroll
      for (int j = 0; j < kItems; j += width) {
        const int i = index(j);
        Pack<In, width> pack{};
        if (i < n) pack = *reinterpret_cast<const Pack<In, width>*>(row + i);
#pragma unroll
        for (int k = 0; k < width; ++k) values[j + k] = i < n ? C(widen(pack.values[k])) : fill;
      }
    } else {
#pragma unroll
      for (int j = 0; j < kItems; ++j) values[j] = index(j) < n ? C(widen(row[index(j)])) : fill;
    }
  }
  // The index in the row of item j.
  __device__ __forceinline__ int index(int j) const {
    return packed ? (j / width * team.size() + team.rank()) * width + j % width : j * team.size() + team.rank();
  }
  template <class F>
  __device__ __forceinline__ void each(const F& f) const {
#pragma unroll
    for (int j = 0; j < kItems; ++j) f(values[j]);
  }
  template <class F>
  __device__ __forceinline__ void each_indexed(const F& f) const {
#pragma unroll
    for (int j = 0; j < kItems; ++j) f(index(j), values[j]);
  }
  __device__ __forceinline__ void shift(C top, C scale) {
#pragma unroll
    for (int j = 0; j < kItems; ++j) values[j] = (values[j] - top) * scale;
  }
  template <class F>
  __device__ __forceinline__ void exponentiate(C top, C scale, const F& f) {
#pragma unroll
    for (int j = 0; j < kItems; ++j) f(values[j] = std::exp((values[j] - top) * scale));
  }
  template <class F>
  __device__ __forceinline__ void store(T* out, const F& f) const {
    store_items(out, [&](int j) { return f(values[j]); });
  }
  template <class F>
  __device__ __forceinline__ void write(T* out, const F& f) const {
    store_items(out, [&](int j) { return f(index(j)); });
  }
  // Stores f(j) at the index of item j; for results computed from several rows.
  template <class F>
  __device__ __forceinline__ void store_items(T* out, const F& f) const {
    if (packed) {
#pragma unroll
      for (int j = 0; j < kItems; j += width) {
        Pack<T, width> pack;
#pragma unroll
        for (int k = 0; k < width; ++k) pack.values[k] = narrow<T>(f(j + k));
        if (index(j) < n) *reinterpret_cast<Pack<T, width>*>(out + index(j)) = pack;
      }
    } else {
#pragma unroll
      for (int j = 0; j < kItems; ++j)
        if (index(j) < n) out[index(j)] = narrow<T>(f(j));
    }
  }
};

// n values of the compute type in shared memory, aligned to 16 bytes.
template <class T, class Team>
struct SharedRow {
  using C = Compute<T>;
  using Index = int64_t;
  static constexpr int longest_chain = Sum<C>::longest_chain;
  using Accumulator = Sum<C>;
  using Total = double;
  using Scalar = double;
  static constexpr int width = MemoryRow<T, Team>::width;
  const MemoryRow<T, Team> memory;
  C* const values;

  // Uses values that are in shared memory already.
  __device__ __forceinline__ SharedRow(const Team& team, C* values_, int64_t n, bool packed)
      : memory{team, n, packed}, values(values_) {}
  __device__ __forceinline__ SharedRow(const Team& team, const T* row, int64_t n, bool packed, C* values_)
      : SharedRow(team, values_, n, packed) {
    memory.map(values, [](C x) { return x; }, row);
  }
  template <class F>
  __device__ __forceinline__ void each(const F& f) const {
    memory.read([&](int64_t, C x) { f(x); }, values);
  }
  template <class F>
  __device__ __forceinline__ void each_indexed(const F& f) const {
    memory.read(f, values);
  }
  __device__ __forceinline__ void shift(C top, C scale) {
    memory.map(values, [&](C x) { return (x - top) * scale; }, values);
  }
  template <class F>
  __device__ __forceinline__ void exponentiate(C top, C scale, const F& f) {
    const auto e_of = [&](C x) {
      const C e = std::exp((x - top) * scale);
      f(e);
      return e;
    };
    memory.map(values, e_of, values);
  }
  template <class F>
  __device__ __forceinline__ void store(T* out, const F& f) const {
    memory.map(out, f, values);
  }
  template <class F>
  __device__ __forceinline__ void write(T* out, const F& f) const {
    memory.write(out, f);
  }
};

// A row in global memory.
template <class T, class Team>
struct GlobalRow {
  using C = Compute<T>;
  static constexpr int longest_chain = Sum<C>::longest_chain;
  using Accumulator = Sum<C>;
  using Total = double;
  using Scalar = double;
  const MemoryRow<T, Team> memory;
  const T* const row;
  C top = 0, scale = 1;

  __device__ __forceinline__ GlobalRow(const Team& team, const T* row_, int64_t n, bool packed)
      : memory{team, n, packed}, row(row_) {}
  template <class F>
  __device__ __forceinline__ void each(const F& f) const {
    memory.read([&](int64_t, C x) { f((x - top) * scale); }, row);
  }
  __device__ __forceinline__ void shift(C top_, C scale_) {
    top = top_;
    scale = scale_;
  }
  template <class F>
  __device__ __forceinline__ void store(T* out, const F& f) const {
    memory.map(out, [&](C x) { return f((x - top) * scale); }, row);
  }
};

}  // namespace automl_ext
