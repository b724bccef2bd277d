// What is done to 64 frequencies at a time between the way there and the way back (see transform.h).
#pragma once
#include "vector.h"

namespace dnasm::cpu {

// The filter's own values, scaled; `kConjugateAdd` adds the conjugate to what is there: taps at negative lags.
template <bool kConjugateAdd> struct StoreSpectrum {
    static constexpr int kSignals = 1;
    static constexpr bool kForward[] = {true}, kInverse[] = {false};
    Cvec* values;
    float factor;

    void operator()(Cvec (&a)[1][8], int64_t at) const {
        const Vec f = splat(factor);
        for (int i = 0; i < 8; ++i) {
            const Cvec v = {a[0][i].re * f, a[0][i].im * f};
            values[at + i] = kConjugateAdd ? Cvec{values[at + i].re + v.re, values[at + i].im - v.im} : v;
        }
    }
};

template <bool kConjugate> struct Multiply {
    static constexpr int kSignals = 1;
    static constexpr bool kForward[] = {true}, kInverse[] = {true};
    const Cvec* filter;

    void operator()(Cvec (&a)[1][8], int64_t at) const {
        for (int i = 0; i < 8; ++i)
            a[0][i] = kConjugate ? times_conj(a[0][i], filter[at + i]) : a[0][i] * filter[at + i];
    }
};

// Signals x and g. Adds g conj x to the filter's gradient; turns x into its convolution if `kConv`, and g into the
// signal's gradient if `kBack`.
template <bool kConv, bool kBack> struct Correlate {
    static constexpr int kSignals = 2;
    static constexpr bool kForward[] = {true, true}, kInverse[] = {kConv, kBack};
    const Cvec* filter;
    Cvec* product;  // null: the filter's gradient is not wanted

    void operator()(Cvec (&a)[2][8], int64_t at) const {
        for (int i = 0; i < 8; ++i) {
            if (product) product[at + i] = product[at + i] + times_conj(a[1][i], a[0][i]);
            if (kConv) a[0][i] = a[0][i] * filter[at + i];
            if (kBack) a[1][i] = times_conj(a[1][i], filter[at + i]);
        }
    }
};

// Frequencies as they stand, or their conjugates, on the way back.
template <bool kConjugate> struct Return {
    static constexpr int kSignals = 1;
    static constexpr bool kForward[] = {false}, kInverse[] = {true};

    void operator()(Cvec (&a)[1][8], int64_t) const {
        if (kConjugate)
            for (int i = 0; i < 8; ++i) a[0][i].im = -a[0][i].im;
    }
};

}  // namespace dnasm::cpu
