// A row of n values shared by the threads of a team. The classes differ in where the values are: in registers, in shared
// memory, or in global memory (read again on every pass). Interface, implemented only where used:
//   each(f, end_chains)          f(x) for every value of this thread; end_chains() ends the chains of its Sums
//   each_indexed(f)              f(i, x), i rising within a thread
//   shift(top, scale, f)         x becomes v = (x − top)·scale; f(v)
//   exponentiate(top, scale, f, end_chains)  x becomes e = exp((x − top)·scale); f(e)
//   combine(other, f)            x becomes f of the element and that of another row
//   store(out, f)                out[i] = f(x)
//   write(out, f)                out[i] = f(i)
// An algorithm over rows is written once for all classes. Each thread accesses only its own values: no barrier is needed.
#pragma once
#include "team.cuh"
#include "types.cuh"

namespace automl_ext {

// Sums of the values of one thread. ShortSum adds a few terms in C. Sum adds any number of terms in double, after chains
// of additions in C. Rows end the chains outside their inner loops, which thus add in C only: double is slow on GPUs.
template <class C>
struct ShortSum {
  C total = 0;
  __device__ __forceinline__ void add(C x) { total += x; }
  __device__ __forceinline__ void end_chain() const {}
  __device__ __forceinline__ C value() const { return total; }
};
// The same in four chains, for unrolled loops.
template <class C>
struct ChainedSum {
  C totals[4] = {0, 0, 0, 0};
  int chain = 0;
  __device__ __forceinline__ void add(C x) {
    totals[chain] += x;
    chain = (chain + 1) % 4;
  }
  __device__ __forceinline__ void end_chain() const {}
  __device__ __forceinline__ C value() const { return (totals[0] + totals[1]) + (totals[2] + totals[3]); }
};
template <class C>
struct Sum {
  double total = 0;
  C chain = 0;
  __device__ __forceinline__ void add(C x) { chain += x; }
  __device__ __forceinline__ void end_chain() {
    total += double(chain);
    chain = 0;
  }
  __device__ __forceinline__ double value() {
    end_chain();
    return total;
  }
};
constexpr int kLongestChain = 64;  // additions to a Sum between calls of end_chain
struct NoChains {
  __device__ __forceinline__ void operator()() const {}
};

// Calls f(i) for i = first, first + step, … below n, and end_chains() after each `calls` of them.
template <int calls, class Index, class F, class EndChains>
__device__ __forceinline__ void in_chains(Index first, Index step, Index n, const F& f, const EndChains& end_chains) {
  if constexpr (std::is_same_v<EndChains, NoChains>) {
    for (Index i = first; i < n; i += step) f(i);
  } else {
    for (Index i = first; i < n;) {
      const Index end = n - i < calls * step ? n : i + calls * step;
      for (; i < end; i += step) f(i);
      end_chains();
    }
  }
}

// A row of n elements in memory, as accessed by one thread of the team: in packs of adjacent elements if the alignment
// allows, else single elements with the stride of the team. Both are coalesced.
template <class T, class Team>
struct MemoryRow {
  static constexpr int width = pack_width<T, 8>();
  const Team team;
  const int64_t n;
  const bool packed;

  // f(i, in[i]…) for every index of this thread. `in` may have another type than T, with the alignment of its packs.
  template <class F, class EndChains, class... In>
  __device__ __forceinline__ void read(const F& f, const EndChains& end_chains, const In*... in) const {
    if (packed) {
      const auto read_packs = [&](int64_t i) {
        each_of_packs([&](int k, auto... x) { f(i + k, x...); }, load_pack<In>(in + i)...);
      };
      in_chains<kLongestChain / width, int64_t>(team.rank() * width, team.size() * width, n, read_packs, end_chains);
    } else {
      in_chains<kLongestChain, int64_t>(
          team.rank(), team.size(), n, [&](int64_t i) { f(i, widen(in[i])...); }, end_chains);
    }
  }
  // out[i] = f(in[i]) for every index of this thread; out is in shared memory. Loads four packs before it stores the first:
  // the loads of a thread wait together.
  template <class Out, class F, class In>
  __device__ __forceinline__ void fetch(Out* out, const F& f, const In* in) const {
    packed ? fetch_packs<width>(out, f, in) : fetch_packs<1>(out, f, in);
  }
  // out[i] = f(i) for every index of this thread.
  template <class F>
  __device__ __forceinline__ void write(T* out, const F& f) const {
    if (packed) {
      for (int64_t i = int64_t(team.rank()) * width; i < n; i += int64_t(team.size()) * width) {
        Pack<T, width> pack;
#pragma unroll
        for (int k = 0; k < width; ++k) pack.values[k] = narrow<T>(f(i + k));
        store_pack(out + i, pack);
      }
    } else {
      for (int64_t i = team.rank(); i < n; i += team.size()) out[i] = narrow<T>(f(i));
    }
  }
  // out[i] = f(in[i]…) for every index of this thread; in and out may be the same. `out` is in global memory, or in shared
  // memory if in_shared.
  template <bool in_shared = false, class Out, class F, class EndChains, class... In>
  __device__ __forceinline__ void map(Out* out, const F& f, const EndChains& end_chains, const In*... in) const {
    if (packed) {
      const auto map_packs = [&](int64_t i) {
        Pack<Out, width> result;
        each_of_packs([&](int k, auto... x) { result.values[k] = narrow<Out>(f(x...)); }, load_pack<In>(in + i)...);
        if constexpr (in_shared)
          *reinterpret_cast<Pack<Out, width>*>(out + i) = result;
        else
          store_pack(out + i, result);
      };
      in_chains<kLongestChain / width, int64_t>(team.rank() * width, team.size() * width, n, map_packs, end_chains);
    } else {
      in_chains<kLongestChain, int64_t>(
          team.rank(), team.size(), n, [&](int64_t i) { out[i] = narrow<Out>(f(widen(in[i])...)); }, end_chains);
    }
  }

 private:
  template <int together, class Out, class F, class In>
  __device__ __forceinline__ void fetch_packs(Out* out, const F& f, const In* in) const {
    constexpr int count = 4;
    const int64_t step = int64_t(team.size()) * together;
    for (int64_t first = int64_t(team.rank()) * together; first < n; first += count * step) {
      Pack<In, together> packs[count];
#pragma unroll
      for (int q = 0; q < count; ++q)
        if (first + q * step < n) packs[q] = *reinterpret_cast<const Pack<In, together>*>(in + first + q * step);
#pragma unroll
      for (int q = 0; q < count; ++q) {
        if (first + q * step >= n) continue;
        Pack<Out, together> result;
#pragma unroll
        for (int k = 0; k < together; ++k) result.values[k] = narrow<Out>(f(widen(packs[q].values[k])));
        *reinterpret_cast<Pack<Out, together>*>(out + first + q * step) = result;
      }
    }
  }
  template <class In>
  static __device__ __forceinline__ Pack<In, width> load_pack(const In* p) {
    return *reinterpret_cast<const Pack<In, width>*>(p);
  }
  // By value: nvcc splits the load of a referenced pack into its elements.
  template <class F, class... Packs>
  static __device__ __forceinline__ void each_of_packs(const F& f, const Packs... packs) {
#pragma unroll
    for (int k = 0; k < width; ++k) f(k, widen(packs.values[k])...);
  }
};

// Up to Team::size()·kItems values in registers. In packs, item j of a thread is element
// (j / width·size + rank)·width + j % width; else j·size + rank, which is at team.place of that in memory. Items beyond the row
// hold `fill`.
template <class T, class Team, int kItems>
struct RegisterRow {
  using C = Compute<T>;
  using Index = int;
  static constexpr int width = pack_width<T, kItems>();
  static constexpr int longest_chain = kItems > 16 ? kItems / 4 + 2 : kItems;
  using Accumulator = std::conditional_t<(kItems > 16), ChainedSum<C>, ShortSum<C>>;
  using Total = C;   // type of a sum over the team
  using Scalar = C;  // type of values computed once per row
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
      const In* at = row + team.place(team.rank());
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        In x = narrow<In>(fill);
        if (index(j) < n) x = *at;
        values[j] = widen(x);
        at += team.place(team.size());
      }
    }
  }
  // x becomes f(x, other[i]). `other` is aligned as packs of C if the row is in packs.
  template <class F>
  __device__ __forceinline__ void combine(const C* other, const F& f) {
    if (packed) {
#pragma unroll
      for (int j = 0; j < kItems; j += width) {
        if (index(j) >= n) continue;
        const auto pack = *reinterpret_cast<const Pack<C, width>*>(other + index(j));
#pragma unroll
        for (int k = 0; k < width; ++k) values[j + k] = f(values[j + k], pack.values[k]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kItems; ++j)
        if (index(j) < n) values[j] = f(values[j], other[index(j)]);
    }
  }
  // The index in the row of item j.
  __device__ __forceinline__ int index(int j) const {
    return packed ? (j / width * team.size() + team.rank()) * width + j % width : j * team.size() + team.rank();
  }
  template <class F, class EndChains = NoChains>
  __device__ __forceinline__ void each(const F& f, const EndChains& = {}) const {
#pragma unroll
    for (int j = 0; j < kItems; ++j) f(values[j]);
  }
  template <class F>
  __device__ __forceinline__ void each_indexed(const F& f) const {
#pragma unroll
    for (int j = 0; j < kItems; ++j) f(index(j), values[j]);
  }
  template <class F>
  __device__ __forceinline__ void shift(C top, C scale, const F& f) {
#pragma unroll
    for (int j = 0; j < kItems; ++j) f(values[j] = (values[j] - top) * scale);
  }
  template <class F, class EndChains>
  __device__ __forceinline__ void exponentiate(C top, C scale, const F& f, const EndChains&) {
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
        if (index(j) < n) store_pack(out + index(j), pack);
      }
    } else {
      const auto& again = team.again();
      T* at = out + again.place(team.rank());
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        if (j % 8 == 0 && again.ends(j, n)) break;
        if (index(j) < n) *at = narrow<T>(f(j));
        at += again.place(team.size());
      }
    }
  }
};

// Calls f(k, at, a[at], b[at]) for the places of the elements of two columns of n that this thread has, k = 0, 1, 2, 3, 0, …
// Loads four of each before it calls f: the loads of a warp wait together.
template <int kWarps, class T, class F>
__device__ __forceinline__ void each_of_column(const ColumnTeam<kWarps>& team, int n, const T* a, const T* b,
                                               const F& f) {
  constexpr int count = 4;
  const int64_t step = team.place(kWarps);
  int64_t at = team.place(team.rank());
  for (int first = team.rank(); first < n; first += count * kWarps, at += count * step) {
    T from_a[count], from_b[count];
#pragma unroll
    for (int k = 0; k < count; ++k)
      if (first + k * kWarps < n) from_a[k] = a[at + k * step], from_b[k] = b[at + k * step];
#pragma unroll
    for (int k = 0; k < count; ++k)
      if (first + k * kWarps < n) f(k, at + k * step, widen(from_a[k]), widen(from_b[k]));
  }
}

// n values of the compute type in shared memory, aligned to 16 bytes. S is the type of sums over the team and of scalars:
// C where no thread has more than kLongestChain values, else double.
template <class T, class Team, class S = double>
struct SharedRow {
  using C = Compute<T>;
  using Index = int64_t;
  static constexpr int longest_chain = kLongestChain;
  using Accumulator = std::conditional_t<std::is_same_v<S, C>, ShortSum<C>, Sum<C>>;
  using Total = S;
  using Scalar = S;
  static constexpr int width = MemoryRow<T, Team>::width;
  const MemoryRow<T, Team> memory;
  C* const values;

  // Uses values that are in shared memory already.
  __device__ __forceinline__ SharedRow(const Team& team, C* values_, int64_t n, bool packed)
      : memory{team, n, packed}, values(values_) {}
  // values[i] becomes f(x[i], values[i]).
  template <class F>
  __device__ __forceinline__ void combine(const T* x, const F& f) {
    memory.template map<true>(values, f, NoChains(), x, values);
  }
  // Copies a row, with f(x) for every value of this thread.
  template <class F>
  __device__ __forceinline__ SharedRow(const Team& team, const T* row, int64_t n, bool packed, C* values_, const F& f)
      : SharedRow(team, values_, n, packed) {
    const auto copy = [&](C x) {
      f(x);
      return x;
    };
    memory.fetch(values, copy, row);
  }
  template <class F, class EndChains = NoChains>
  __device__ __forceinline__ void each(const F& f, const EndChains& end_chains = {}) const {
    memory.read([&](int64_t, C x) { f(x); }, end_chains, values);
  }
  template <class F>
  __device__ __forceinline__ void each_indexed(const F& f) const {
    memory.read(f, NoChains(), values);
  }
  template <class F>
  __device__ __forceinline__ void shift(C top, C scale, const F& f) {
    const auto shifted = [&](C x) {
      const C v = (x - top) * scale;
      f(v);
      return v;
    };
    memory.template map<true>(values, shifted, NoChains(), values);
  }
  template <class F, class EndChains>
  __device__ __forceinline__ void exponentiate(C top, C scale, const F& f, const EndChains& end_chains) {
    const auto e_of = [&](C x) {
      const C e = std::exp((x - top) * scale);
      f(e);
      return e;
    };
    memory.template map<true>(values, e_of, end_chains, values);
  }
  template <class F>
  __device__ __forceinline__ void store(T* out, const F& f) const {
    memory.map(out, f, NoChains(), values);
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
  static constexpr int longest_chain = kLongestChain;
  using Accumulator = Sum<C>;
  using Total = double;
  using Scalar = double;
  const MemoryRow<T, Team> memory;
  const T* const row;
  C top = 0, scale = 1;

  __device__ __forceinline__ GlobalRow(const Team& team, const T* row_, int64_t n, bool packed)
      : memory{team, n, packed}, row(row_) {}
  template <class F, class EndChains = NoChains>
  __device__ __forceinline__ void each(const F& f, const EndChains& end_chains = {}) const {
    memory.read([&](int64_t, C x) { f((x - top) * scale); }, end_chains, row);
  }
  template <class F>
  __device__ __forceinline__ void shift(C top_, C scale_, const F& f) {
    top = top_;
    scale = scale_;
    each(f);
  }
  template <class F>
  __device__ __forceinline__ void store(T* out, const F& f) const {
    memory.map(out, [&](C x) { return f((x - top) * scale); }, NoChains(), row);
  }
};

}  // namespace automl_ext
