// Eight floats at a time, in the compiler's own vector type: AVX2, AVX-512 and NEON from one source.
#pragma once
#include <cstdint>
#include <cstring>

namespace dnasm::cpu {

typedef float Vec __attribute__((vector_size(32)));
constexpr int kLanes = 8;

inline Vec load(const float* from) {
    Vec v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }

inline Vec splat(float x) { return Vec{x, x, x, x, x, x, x, x}; }

// Eight complex numbers, real parts first: one cache line, so a stage never reads half of one.
struct alignas(64) Cvec {
    Vec re, im;

    Cvec() = default;
    Cvec(Vec re_, Vec im_) : re(re_), im(im_) {}
    // Member by member: as plain bytes the compiler copies in pieces that a load of the whole then has to wait for.
    Cvec(const Cvec& from) : re(from.re), im(from.im) {}
    Cvec& operator=(const Cvec& from) {
        re = from.re;
        im = from.im;
        return *this;
    }
};

inline Cvec operator+(Cvec a, Cvec b) { return {a.re + b.re, a.im + b.im}; }
inline Cvec operator-(Cvec a, Cvec b) { return {a.re - b.re, a.im - b.im}; }
inline Cvec operator*(Cvec a, Cvec b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
inline Cvec times_conj(Cvec a, Cvec b) { return {a.re * b.re + a.im * b.im, a.im * b.re - a.re * b.im}; }

// Multiply by i (Sign = 1) or -i (Sign = -1).
template <int Sign> inline Cvec quarter_turn(Cvec a) { return Sign > 0 ? Cvec{-a.im, a.re} : Cvec{a.im, -a.re}; }

#if defined(__clang__) || __GNUC__ >= 12
#define DNASM_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t IntVec __attribute__((vector_size(32)));
#define DNASM_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, IntVec{__VA_ARGS__})
#endif

// Turn the 8x8 square whose rows are r[0..7].
inline void transpose(Vec (&r)[8]) {
    Vec pairs[8], quads[8];
    for (int i = 0; i < 4; ++i) {
        pairs[2 * i] = DNASM_SHUFFLE(r[2 * i], r[2 * i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        pairs[2 * i + 1] = DNASM_SHUFFLE(r[2 * i], r[2 * i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4) {
        for (int j = 0; j < 2; ++j) {
            quads[i + 2 * j] = DNASM_SHUFFLE(pairs[i + j], pairs[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            quads[i + 2 * j + 1] = DNASM_SHUFFLE(pairs[i + j], pairs[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = DNASM_SHUFFLE(quads[i], quads[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[i + 4] = DNASM_SHUFFLE(quads[i], quads[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

}  // namespace dnasm::cpu
