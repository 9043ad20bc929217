// The operations of scan(): what each loads at a step, its affine map of the state, and the outputs it stores. The
// state comes from the previous step in scan order. Formulas and notation as in lambda_kernel.inc and
// off_policy_kernel.inc.
#pragma once
#include "steps.cuh"

namespace automl_ext {

// Stores the value if `stores`. The value is computed outside the branch.
template <class T>
__device__ __forceinline__ void store_if(bool stores, void* p, int64_t at, Compute<T> value) {
  const T narrowed = narrow<T>(value);
  if (stores) static_cast<T*>(p)[at] = narrowed;
}

// The map state → add + multiply·state. After a cut the state is ignored, because it may be NaN.
template <class C>
struct Affine {
  C add, multiply;
  uint32_t cut;

  __device__ __forceinline__ C at(C state) const { return cut ? add : add + multiply * state; }
  // The composition: this map after `first`.
  __device__ __forceinline__ Affine after(const Affine& first) const {
    return {at(first.add), multiply * first.multiply, cut | first.cut};
  }
};

// A = delta + gamma lambda c A'
template <class T>
struct GaeScan {
  using C = Compute<T>;
  static constexpr bool backward_in_time = true;
  struct Step {
    Flags flags;
    C delta, value;
  };
  const Trajectory& x;
  const C gamma, decay;
  __device__ __forceinline__ explicit GaeScan(const Trajectory& x_)
      : x(x_), gamma(C(x_.gamma)), decay(C(x_.gamma * x_.lam)) {}

  __device__ __forceinline__ Step load_step(const Flags& flags, int64_t at, bool) const {
    const C value = load<T>(x.values, at), v = keep(flags.valid, value);
    const C r = keep(flags.valid, load<T>(x.rewards, at)), next = keep(flags.live, load<T>(x.next_values, at));
    return {flags, (r + gamma * next) - v, value};
  }
  __device__ __forceinline__ Affine<C> map(const Step& s) const { return {s.delta, decay, s.flags.cut}; }
  __device__ __forceinline__ C emit(const Step& s, int64_t at, bool stores, C state) const {
    const C advantage = map(s).at(state);
    store_if<T>(stores, x.out[0], at, advantage);
    store_if<T>(stores, x.out[1], at, s.flags.valid ? advantage + s.value : s.value);
    return advantage;
  }
};

// a_t = dA_t + dR_t + state, with the state gamma lambda c_{t-1} a_{t-1}; dr = a, dV = dR - a, dV' = g a
template <class T>
struct GaeGradientScan {
  using C = Compute<T>;
  static constexpr bool backward_in_time = false;
  struct Step {
    Flags flags;
    C grad, grad_return;
  };
  const Trajectory& x;
  const C gamma, decay;
  __device__ __forceinline__ explicit GaeGradientScan(const Trajectory& x_)
      : x(x_), gamma(C(x_.gamma)), decay(C(x_.gamma * x_.lam)) {}

  __device__ __forceinline__ Step load_step(const Flags& flags, int64_t at, bool) const {
    const C grad_advantage = x.grad ? keep(flags.valid, load<T>(x.grad, at)) : C(0);
    const C grad_return = x.grad_returns ? keep(flags.valid, load<T>(x.grad_returns, at)) : C(0);
    return {flags, grad_advantage + grad_return, grad_return};
  }
  __device__ __forceinline__ Affine<C> map(const Step& s) const {
    return {keep(!s.flags.cut, decay * s.grad), decay, s.flags.cut};
  }
  __device__ __forceinline__ C emit(const Step& s, int64_t at, bool stores, C state) const {
    const C a = s.grad + state;
    store_if<T>(stores, x.out[0], at, a);
    store_if<T>(stores, x.out[1], at, s.grad_return - a);
    store_if<T>(stores, x.out[2], at, keep(s.flags.live, gamma * a));
    return keep(!s.flags.cut, decay * a);
  }
};

// g and V' of lambda-returns. With lambda = 1, V' is used at cuts only.
template <class T>
struct LambdaInputs {
  using C = Compute<T>;
  const Trajectory& x;
  const C gamma, lam, rest;
  const bool uses_all_values;
  __device__ __forceinline__ explicit LambdaInputs(const Trajectory& x_)
      : x(x_), gamma(C(x_.gamma)), lam(C(x_.lam)), rest(C(1 - x_.lam)), uses_all_values(x_.lam != 1) {}

  __device__ __forceinline__ C discount(const Flags& flags, int64_t at) const {
    return x.discounts ? keep(flags.valid, load<T>(x.discounts, at)) : keep(flags.live, gamma);
  }
  __device__ __forceinline__ C next(const Flags& flags, int64_t at) const {
    const uint32_t bootstraps = (x.discounts ? flags.valid : flags.live) & (uses_all_values ? 1u : flags.cut);
    return keep(bootstraps, load<T>(x.next_values, at));
  }
  // The factor of g in G = r + g·ahead.
  __device__ __forceinline__ C ahead(const Flags& flags, C next, C following) const {
    return flags.cut ? next : rest * next + lam * following;
  }
};

// G = r + g·ahead
template <class T>
struct LambdaScan {
  using C = Compute<T>;
  static constexpr bool backward_in_time = true;
  struct Step {
    Flags flags;
    C r, discount, next;
  };
  const Trajectory& x;
  const LambdaInputs<T> inputs;
  __device__ __forceinline__ explicit LambdaScan(const Trajectory& x_) : x(x_), inputs(x_) {}

  __device__ __forceinline__ Step load_step(const Flags& flags, int64_t at, bool) const {
    return {flags, keep(flags.valid, load<T>(x.rewards, at)), inputs.discount(flags, at), inputs.next(flags, at)};
  }
  __device__ __forceinline__ Affine<C> map(const Step& s) const {
    return {s.r + s.discount * (s.flags.cut ? s.next : inputs.rest * s.next), s.discount * inputs.lam, s.flags.cut};
  }
  __device__ __forceinline__ C emit(const Step& s, int64_t at, bool stores, C state) const {
    const C result = s.r + s.discount * inputs.ahead(s.flags, s.next, state);
    store_if<T>(stores, x.out[0], at, result);
    return result;
  }
};

// The gradient of lambda-returns, in the notation of lambda_kernel.inc: a_t = grad_t + state, with the state
// lambda c_{t-1} g_{t-1} a_{t-1};
// dr = a, dV' = (1 - lambda c) g a, dg = a·ahead
template <class T>
struct LambdaGradientScan {
  using C = Compute<T>;
  static constexpr bool backward_in_time = false;
  struct Step {
    Flags flags;
    C grad, discount, ahead;
  };
  const Trajectory& x;
  const LambdaInputs<T> inputs;
  __device__ __forceinline__ explicit LambdaGradientScan(const Trajectory& x_) : x(x_), inputs(x_) {}

  __device__ __forceinline__ Step load_step(const Flags& flags, int64_t at, bool last) const {
    Step s{flags, keep(flags.valid, load<T>(x.grad, at)), inputs.discount(flags, at), C(0)};
    // The last step is a cut, which ignores the following return.
    if (x.returns)
      s.ahead = inputs.ahead(flags, inputs.next(flags, at),
                             load<T>(x.returns, last ? at : at + x.columns));
    return s;
  }
  __device__ __forceinline__ Affine<C> map(const Step& s) const {
    return {keep(!s.flags.cut, inputs.lam * (s.discount * s.grad)), inputs.lam * s.discount, s.flags.cut};
  }
  __device__ __forceinline__ C emit(const Step& s, int64_t at, bool stores, C state) const {
    const C a = s.grad + state, discounted = s.discount * a;
    store_if<T>(stores, x.out[0], at, a);
    store_if<T>(stores, x.out[1], at, s.flags.cut ? discounted : inputs.rest * discounted);
    if (x.returns) store_if<T>(stores, x.out[2], at, a * s.ahead);
    return keep(!s.flags.cut, inputs.lam * discounted);
  }
};

template <class C>
__device__ __forceinline__ C clip(C value, C high) {
  return value > high ? high : value;  // NaN is kept
}

// The scan's state is v_s - V(x_s) (V-trace, Espeholt et al. 2018, Remark 1).
template <class T>
struct VtraceScan {
  using C = Compute<T>;
  static constexpr bool backward_in_time = true;
  struct Step {
    Flags flags;
    C r, value, value_ahead, next, ratio;
  };
  const Trajectory& x;
  const C gamma, lam, rho_clip, c_clip;
  __device__ __forceinline__ explicit VtraceScan(const Trajectory& x_)
      : x(x_), gamma(C(x_.gamma)), lam(C(x_.lam)), rho_clip(C(x_.rho_clip)), c_clip(C(x_.c_clip)) {}

  __device__ __forceinline__ Step load_step(const Flags& flags, int64_t at, bool last) const {
    return {flags,
            keep(flags.valid, load<T>(x.rewards, at)),
            load<T>(x.values, at),
            load<T>(x.values, last ? at : at + x.columns),
            keep(flags.live, load<T>(x.next_values, at)),
            exp(keep(flags.valid, load<T>(x.log_rhos, at)))};
  }
  __device__ __forceinline__ Affine<C> map(const Step& s) const {
    const C rho = clip(s.ratio, rho_clip), w = lam * clip(s.ratio, c_clip);
    return {rho * ((s.r + gamma * s.next) - keep(s.flags.valid, s.value)), gamma * w, s.flags.cut};
  }
  __device__ __forceinline__ C emit(const Step& s, int64_t at, bool stores, C state) const {
    const C excess = map(s).at(state), v = keep(s.flags.valid, s.value), rho = clip(s.ratio, rho_clip);
    const C following_vs = s.flags.cut ? s.next : s.value_ahead + state;
    store_if<T>(stores, x.out[0], at, s.flags.valid ? v + excess : s.value);
    store_if<T>(stores, x.out[1], at, keep(s.flags.valid, rho * ((s.r + gamma * following_vs) - v)));
    return excess;
  }
};

// The state is w (Q^ret - Q).
template <class T>
struct RetraceScan {
  using C = Compute<T>;
  static constexpr bool backward_in_time = true;
  struct Step {
    Flags flags;
    C target, q, ratio;  // target: without the term from the following step
  };
  const Trajectory& x;
  const C gamma, lam;
  __device__ __forceinline__ explicit RetraceScan(const Trajectory& x_) : x(x_), gamma(C(x_.gamma)), lam(C(x_.lam)) {}

  __device__ __forceinline__ Step load_step(const Flags& flags, int64_t at, bool) const {
    const C r = keep(flags.valid, load<T>(x.rewards, at)), next = keep(flags.live, load<T>(x.next_values, at));
    return {flags, r + gamma * next, load<T>(x.values, at), exp(keep(flags.valid, load<T>(x.log_rhos, at)))};
  }
  __device__ __forceinline__ C weighted_excess(const Step& s, C target) const {
    return lam * clip(s.ratio, C(1)) * (target - keep(s.flags.valid, s.q));
  }
  __device__ __forceinline__ Affine<C> map(const Step& s) const {
    return {weighted_excess(s, s.target), lam * clip(s.ratio, C(1)) * gamma, s.flags.cut};
  }
  __device__ __forceinline__ C emit(const Step& s, int64_t at, bool stores, C state) const {
    const C target = s.flags.cut ? s.target : s.target + gamma * state;
    store_if<T>(stores, x.out[0], at, s.flags.valid ? target : s.q);
    return weighted_excess(s, target);
  }
};

}  // namespace automl_ext
