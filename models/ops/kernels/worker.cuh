// What the passes of local attention do alike, by the threads of one block: fetch, score, hand
// over, accumulate, join.
#pragma once

#include "plan.cuh"

// A row of cells, or 32 of them, that is visited.
struct Visit {
    int frame, y, x;            // its first cell; x may lie outside the map
    int columns;                // that are wanted, at most COLUMNS
    bool real;                  // false for splits that have no row left
};

// Sums over the parts of the channels: 4 cells of one part become KEPT cells of all.
__device__ inline void sum_parts(const float (&x)[32], float (&to)[32])
{
#pragma unroll
    for (int i = 0; i < 32; ++i)
        to[i] = x[i];
}
__device__ inline void sum_parts(const float (&x)[32], float (&to)[16]) { fold(x, to, 8, Sum()); }
__device__ inline void sum_parts(const float (&x)[32], float (&to)[8])
{
    float half[16];
    fold(x, half, 16, Sum());
    fold(half, to, 8, Sum());
}

template <int PASS> struct Worker {
    using P = Plan<PASS>;
    using Payload = float4[P::VECTORS][8];

    const Problem &problem;
    unsigned char *const shared = shared_memory();
    const int lane = threadIdx.x % 32, in_group = lane % LANES, part = in_group / 8;
    const int strip = threadIdx.x / 32 % P::STRIPS, split = threadIdx.x / 32 / P::STRIPS;
    const int row = strip * GROUPS + lane / LANES;                  // of the tile
    const int top = blockIdx.y * P::HEIGHT, left = blockIdx.x * 8;  // of the tile, in the map
    const int block = blockIdx.z % P::BLOCKS;                       // of channels
    const int map = blockIdx.z / P::BLOCKS;
    const int batch = P::BY_QUERY ? map : map / problem.frames;
    const int frame = P::BY_QUERY ? 0 : map % problem.frames;       // of a tile of keys
    const int first = max(top - RADIUS, 0);  // row of cells that the tile sees
    const int rows = min(top + P::HEIGHT + RADIUS, problem.height) - first;
    const int visits = rows * VISITS * (P::BY_QUERY ? problem.frames : 1);
    const int stages = quotient(visits, P::SPLITS) * P::STAGES;

    __device__ Worker(const Problem &given) : problem(given) {}

    __device__ long long cell(int y, int x) const
    {
        return (static_cast<long long>(batch) * problem.height + y) * problem.width + x;
    }

    // The maps of one kind of score: of the tile, and of the cells of frame t.
    __device__ const KEY *tile_map(typename P::Keys) const
    {
        return P::BY_QUERY ? problem.query : problem.keys[frame];
    }
    __device__ const VALUE *tile_map(typename P::Values) const
    {
        return P::BY_QUERY ? problem.gradient : problem.values[frame];
    }
    __device__ const KEY *cell_map(typename P::Keys, int t) const
    {
        return P::BY_QUERY ? problem.keys[t] : problem.query;
    }
    __device__ const VALUE *cell_map(typename P::Values, int t) const
    {
        return P::BY_QUERY ? problem.values[t] : problem.gradient;
    }

    __device__ Visit visit(int number) const
    {
        const int skipped = 32 * (number % VISITS), line = number / VISITS;
        return {P::BY_QUERY ? line / rows : 0, first + (P::BY_QUERY ? line % rows : line),
                left - RADIUS + skipped, min(COLUMNS, SPAN - skipped), number < visits};
    }

    __device__ Visit visit_of(int stage) const
    {
        return visit(stage / P::STAGES * P::SPLITS + split);
    }

    __device__ bool sees(int tile_row, const Visit &at) const
    {
        return at.real && abs(top + tile_row - at.y) <= RADIUS;
    }

    // The columns of a visit that lie in the map.
    __device__ int begin_of(const Visit &at) const { return max(0, -at.x); }
    __device__ int end_of(const Visit &at) const { return min(at.columns, problem.width - at.x); }

    // Copies to shared memory. Channels beyond the last are zeros; pixels outside the map are, too.

    template <class S> __device__ void fetch_tile(S score, int place, int from, int channels) const
    {
        using T = typename S::Type;
        const int units = channels * int(sizeof(T)) / 16, per_unit = 16 / sizeof(T);
        const T *map = tile_map(score);
#pragma unroll 1
        for (int i = threadIdx.x; i < P::PIXELS * units; i += P::THREADS) {
            const int pixel = i / units, c = from + i % units * per_unit;
            const int y = top + pixel / 8, x = left + pixel % 8;
            const bool inside = y < problem.height && x < problem.width && c < S::CHANNELS;
            copy_16(shared + place + pixel / 8 * S::ROW + pixel % 8 * S::PITCH + i % units * 16,
                    map + (inside ? cell(y, x) * S::CHANNELS + c : 0), inside);
        }
    }

    template <class S>
    __device__ void fetch_cells(S score, const Visit &at, int buffer, int from) const
    {
        using T = typename S::Type;
        constexpr int units = SLICE * sizeof(T) / 16, per_unit = 16 / sizeof(T);
        const T *map = cell_map(score, at.frame);
        unsigned char *to =
            shared + P::AT_CELLS + buffer * P::CELLS + split * 8 * EIGHTS * pitch<T>(SLICE);
#pragma unroll 1
        for (int i = strip * 32 + lane; i < COLUMNS * units; i += 32 * P::STRIPS) {
            const int column = i / units, x = at.x + column, c = from + i % units * per_unit;
            const bool inside = x >= 0 && x < problem.width && c < S::CHANNELS;
            copy_16(to + column * pitch<T>(SLICE) + i % units * 16,
                    map + (inside ? cell(at.y, x) * S::CHANNELS + c : 0), inside);
        }
    }

    template <class S> __device__ void fetch(S score, const Visit &at, int slice, int buffer) const
    {
        if (!S::STAYS)
            fetch_tile(score, P::AT_SLICES + buffer * P::SLICES, slice * SLICE, SLICE);
        if (at.real)
            fetch_cells(score, at, buffer, slice * SLICE);
    }

    // Stage by stage, a slice of channels of one score; the next one is on its way while this one
    // is used.
    __device__ void fetch_stage(int stage) const
    {
        if (stage >= stages)
            return;
        const Visit at = visit_of(stage);
        const int slice = stage % P::STAGES;
        if (slice < P::Keys::SLICES)
            fetch(typename P::Keys(), at, slice, stage % 2);
        else if constexpr (P::TWO)
            fetch(typename P::Values(), at, slice - P::Keys::SLICES, stage % 2);
    }

    __device__ void prepare() const
    {
        if (P::Keys::STAYS)
            fetch_tile(typename P::Keys(), 0, 0, P::Keys::SLICES * SLICE);
        if constexpr (P::TWO)
            if (P::Values::STAYS)
                fetch_tile(typename P::Values(), P::AT_VALUES, 0, P::Values::SLICES * SLICE);
        fetch_stage(0);
    }

    // Scores. Of the visit's cells a lane first has in_group % 8 + 8 i, i < 4, with one part of the
    // channels, then cell_of(i), i < KEPT, with all of them: score i * 8 + e for pixel e.

    __device__ int cell_of(int i) const { return in_group % 8 + 8 * (KEPT * part + i); }

    template <class S>
    __device__ void score_slice(S, int place, int slice, int buffer, float (&sums)[32]) const
    {
        using T = typename S::Type;
        const int skipped = S::STAYS ? slice * SLICE : 0;
        const unsigned char *tile = shared + (S::STAYS ? place : P::AT_SLICES + buffer * P::SLICES)
                                    + row * S::ROW + (skipped + part * 4) * sizeof(T);
        const unsigned char *cells = shared + P::AT_CELLS + buffer * P::CELLS + part * 4 * sizeof(T)
                                     + (split * 8 * EIGHTS + in_group % 8) * pitch<T>(SLICE);
#pragma unroll 1
        for (int c = 0; c < 16; c += 4) {
#pragma unroll
            for (int first = 0; first < EIGHTS; first += P::AT_ONCE) {
                const int end = min(first + P::AT_ONCE, EIGHTS);
                float4 theirs[P::AT_ONCE];
#pragma unroll
                for (int i = first; i < end; ++i)
                    theirs[i - first] = load(reinterpret_cast<const T *>(
                        cells + 8 * i * pitch<T>(SLICE)) + c * PARTS);
#pragma unroll
                for (int e = 0; e < 8; ++e) {
                    const float4 ours =
                        load(reinterpret_cast<const T *>(tile + e * S::PITCH) + c * PARTS);
#pragma unroll
                    for (int i = first; i < end; ++i)
                        sums[i * 8 + e] = dot(ours, theirs[i - first], sums[i * 8 + e]);
                }
            }
        }
    }

    template <class S>
    __device__ void score(S kind, int place, bool seen, int &stage, float (&to)[8 * KEPT]) const
    {
        float sums[32] = {};
        for (int slice = 0; slice < S::SLICES; ++slice, ++stage) {
            copies_done();
            // The stage has come, and all are done with the buffer of the one before
            __syncthreads();
            fetch_stage(stage + 1);
            if (seen)
                score_slice(kind, place, slice, stage % 2, sums);
        }
        sum_parts(sums, to);
    }

    // Weights, from the lanes that have the scores to those that accumulate.

    __device__ float *weights(int set) const
    {
        return reinterpret_cast<float *>(shared + P::AT_WEIGHTS)
               + ((threadIdx.x / 32 * P::SETS + set) * GROUPS + lane / LANES) * P::GROUP;
    }

    // All lanes are done with the weights of the visit before: there was a barrier in `score`.
    __device__ void hand_over(const float (&x)[8 * KEPT], int set) const
    {
        float *to = weights(set);
#pragma unroll
        for (int i = 0; i < KEPT; ++i)
            if (cell_of(i) < COLUMNS) {
                store(to + 4 * cell_of(i),
                      make_float4(x[i * 8], x[i * 8 + 1], x[i * 8 + 2], x[i * 8 + 3]));
                store(to + 4 * (COLUMNS + cell_of(i)),
                      make_float4(x[i * 8 + 4], x[i * 8 + 5], x[i * 8 + 6], x[i * 8 + 7]));
            }
    }

    // Where vector n of a lane takes its weights and its channels.
    __device__ int set_of(int n) const
    {
        return P::SETS == 1 ? 0 : P::VECTORS == 2 ? n : in_group / (LANES / 2);
    }
    __device__ int channel_of(int n) const
    {
        const int vector = P::SETS == 1      ? in_group + LANES * n
                           : P::VECTORS == 2 ? in_group
                                             : in_group % (LANES / 2);
        return block * P::BLOCK + 4 * vector;
    }

    template <class S> __device__ void accumulate(S kind, const Visit &at, Payload &sums) const
    {
        const int begin = begin_of(at), end = end_of(at);
        const typename S::Type *from[P::VECTORS];
        const float *weight[P::VECTORS];
#pragma unroll
        for (int n = 0; n < P::VECTORS; ++n) {
            from[n] =
                cell_map(kind, at.frame) + cell(at.y, at.x + begin) * S::CHANNELS
                + (P::CHANNELS % P::BLOCK ? min(channel_of(n), P::CHANNELS - 4) : channel_of(n));
            weight[n] = weights(set_of(n));
        }
#pragma unroll 2
        for (int column = begin; column < end; ++column) {
#pragma unroll
            for (int n = 0; n < P::VECTORS; ++n) {
                const float4 held = load(from[n]), low = load(weight[n] + 4 * column),
                             high = load(weight[n] + 4 * (COLUMNS + column));
                const float of[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
                from[n] += S::CHANNELS;
#pragma unroll
                for (int e = 0; e < 8; ++e)
                    sums[n][e] = axpy(of[e], held, sums[n][e]);
            }
        }
    }

    // Sums of all splits, in a fixed order, in the warps of split 0.
    __device__ void join_splits(Payload &sums) const
    {
        float4 *pool = reinterpret_cast<float4 *>(shared) + strip * 8 * P::VECTORS * 32 + lane;
        constexpr int pitch = P::STRIPS * 8 * P::VECTORS * 32;
#pragma unroll
        for (int half = P::SPLITS / 2; half; half /= 2) {
            __syncthreads();
            if (split >= half && split < 2 * half)
                for_all([&](int n, int e) {
                    pool[(split - half) * pitch + (n * 8 + e) * 32] = sums[n][e];
                });
            __syncthreads();
            if (split < half)
                for_all([&](int n, int e) {
                    sums[n][e] = plus(sums[n][e], pool[split * pitch + (n * 8 + e) * 32]);
                });
        }
    }

    template <class F> __device__ static void for_all(F each)
    {
#pragma unroll
        for (int n = 0; n < P::VECTORS; ++n)
#pragma unroll
            for (int e = 0; e < 8; ++e)
                each(n, e);
    }

    // A number of each pixel, of all splits, in a fixed order: lane l of eight has pixel l of its
    // row.
    template <class Join> __device__ float over_splits(float x, Join join) const
    {
        if (P::SPLITS == 1)
            return x;
        float *pool = reinterpret_cast<float *>(shared) + row * 8 + in_group % 8;
        __syncthreads();
        if (part == 0)
            pool[split * P::PIXELS] = x;
        __syncthreads();
        x = pool[0];
        for (int i = 1; i < P::SPLITS; ++i)
            x = join(x, pool[i * P::PIXELS]);
        return x;
    }

    template <class T> __device__ void write(const Payload &sums, int count) const
    {
        const int index = P::BY_QUERY ? 0 : fresh(map) % problem.frames;
        T *result = static_cast<T *>(problem.results[index]);
        const int y = top + row;
        for_all([&](int n, int e) {
            const int x = left + e, channel = channel_of(n);
            if (n < count && y < problem.height && x < problem.width && channel < P::CHANNELS)
                store(result + cell(y, x) * P::CHANNELS + channel, sums[n][e]);
        });
    }

    // Whether pixel e sees cell i of this lane. `seen`: whether its row sees the cells' row.
    __device__ bool within(int i, int e, const Visit &at, bool seen) const
    {
        const int x = at.x + cell_of(i);
        return seen && x >= 0 && x < problem.width && abs(x - left - e) <= RADIUS;
    }

    // The pixel of this lane, of the eight of its row, as index of a cell; -1 outside the map.
    __device__ long long own_pixel() const
    {
        const int y = top + row, x = left + in_group % 8;
        return y < problem.height && x < problem.width ? cell(y, x) : -1;
    }

    __device__ void run();
};
