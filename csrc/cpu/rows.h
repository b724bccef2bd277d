// Reading and writing a few hundred samples of a tensor's row, at any stride and dtype, as floats.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "../short/short.h"

namespace dnasm::cpu {

struct Row {
    char* data = nullptr;  // null: the tensor is absent
    int64_t step = 1;      // between neighbouring samples, in elements
    int dtype = kFloat32;  // or kFloat16 or kBfloat16

    int64_t element() const { return dtype == kFloat32 ? 4 : 2; }  // bytes
    explicit operator bool() const { return data != nullptr; }
};

inline Row row_of(const Strided& tensor, int dtype, int64_t b, int64_t d) {
    Row row{static_cast<char*>(tensor.data), tensor.stride_l, dtype};
    if (row) row.data += (b * tensor.stride_b + d * tensor.stride_d) * row.element();
    return row;
}

inline Strided strided(const Rows& rows) { return {rows.data, rows.stride_b, rows.stride_d, 1}; }

inline float widen(float x) { return x; }

inline float widen(uint16_t bits) {  // bfloat16
    const uint32_t wide = uint32_t(bits) << 16;
    float x;
    std::memcpy(&x, &wide, sizeof x);
    return x;
}

inline float widen(_Float16 x) { return float(x); }

inline void narrow(float x, float& to) { to = x; }

inline void narrow(float x, uint16_t& to) {  // to nearest, ties to even; a NaN stays one
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    to = uint16_t(x != x ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline void narrow(float x, _Float16& to) { to = _Float16(x); }

template <class T> void read_as(const Row& row, int64_t at, int64_t n, float* to) {
    const T* from = reinterpret_cast<const T*>(row.data) + at * row.step;
    if (row.step == 1) {
        for (int64_t i = 0; i < n; ++i) to[i] = widen(from[i]);
    } else {
        for (int64_t i = 0; i < n; ++i) to[i] = widen(from[i * row.step]);
    }
}

template <class T> void write_as(const Row& row, int64_t at, int64_t n, const float* from) {
    T* to = reinterpret_cast<T*>(row.data) + at * row.step;
    for (int64_t i = 0; i < n; ++i) narrow(from[i], to[i * row.step]);
}

inline void read(const Row& row, int64_t at, int64_t n, float* to) {
    switch (row.dtype) {
        case kFloat32: return read_as<float>(row, at, n, to);
        case kFloat16: return read_as<_Float16>(row, at, n, to);
        default: return read_as<uint16_t>(row, at, n, to);
    }
}

inline void write(const Row& row, int64_t at, int64_t n, const float* from) {
    switch (row.dtype) {
        case kFloat32: return write_as<float>(row, at, n, from);
        case kFloat16: return write_as<_Float16>(row, at, n, from);
        default: return write_as<uint16_t>(row, at, n, from);
    }
}

// Ask for the start of a piece, so that it comes while the row before it is worked on: neighbouring rows of one channel
// lie far apart, and the processor does not guess the jump.
template <int kWrite> void prefetch(const Row& row, std::pair<int64_t, int64_t> piece) {
    constexpr int64_t kLine = 64, kMost = 8192;  // bytes
    if (!row || row.step != 1) return;
    const int64_t bytes = std::min(kMost, (piece.second - piece.first) * row.element());
    for (int64_t i = 0; i < bytes; i += kLine) __builtin_prefetch(row.data + piece.first * row.element() + i, kWrite, 2);
}

// Multiply n floats by a row's, if the row is there.
inline void scale(const Row& row, int64_t at, int64_t n, float* to) {
    if (!row) return;
    if (row.dtype == kFloat32 && row.step == 1) {
        const float* gate = reinterpret_cast<const float*>(row.data) + at;
        for (int64_t i = 0; i < n; ++i) to[i] *= gate[i];
        return;
    }
    for (int64_t done = 0; done < n; done += 256) {
        float gate[256];
        const int64_t part = n - done < 256 ? n - done : 256;
        read(row, at + done, part, gate);
        for (int64_t i = 0; i < part; ++i) to[done + i] *= gate[i];
    }
}

}  // namespace dnasm::cpu
