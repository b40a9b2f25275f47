// Local attention over several frames on a CPU, forward and backward, without ever storing its
// weights. What it computes: models/ops/local_attention.py.
// Who builds and calls it: models/ops/local_attention_cpp.py.
//
// A group is LANES pixels, 4 in a row. In a frame it sees a rectangle of cells, little larger than
// the window. Three passes are one algorithm of two halves:
//
//   score    products of the group's pixels and the rectangle's cells over channels:
//            a vector is all pixels, one cell
//   gather   sums of what the cells hold, weighted by what the scores became:
//            a vector is LANES channels of one pixel
//
//   pass          group of       cells of     scores       weights of a cell         sums
//   read          queries        T frames     q k          p                         v
//   of queries    queries        T frames     q k, g v     p (g v - delta)           k
//   of memory     keys, one t    queries      k q, v g     p (g v - delta), and p    q, and g
//
// with g the gradient of the read, p = exp(q k - largest) / sum, delta = sum of p (g v) over all
// cells of a query. Each pass writes what is its own, so nothing is added across threads, and
// results do not depend on how many there are. Products are summed over channels in the same order
// everywhere, so scores are the same to the bit in all passes: a weight of exactly 1 stays one, and
// its key's gradient is exactly 0.
//
// Taps outside the map have logit 0 and value 0: they are counted, never visited.
#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

// Maps are (batch, height, width, channels). Channels of what is gathered are a multiple of LANES.
struct Problem {
    int batch, height, width, frames, window, key_channels, value_channels, threads;
    const float *query, *gradient, *constant;           // constant: null if there is none
    const float *const *keys, *const *values;
    float *softmax, *delta;  // per query: largest logit, 1 / sum of exponentials; delta
    // result: the read, or the gradient of the query
    float *result, *const *of_keys, *const *of_values;
};
extern "C" const int problem_size = sizeof(Problem);

namespace {

typedef float Vec __attribute__((vector_size(4 * LANES), may_alias));
typedef int Ints __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

constexpr int WIDE = 4, HIGH = LANES / WIDE;            // pixels of a group
constexpr int PART = 8 * WIDE;  // pixels of the groups that a thread takes at once
// What stays in registers: the scores of CELLS cells; of WIDE pixels, SUMS vectors
// that are gathered.
constexpr int CELLS = LANES == 16 ? 12 : 6, SUMS = LANES == 16 ? 4 : 2;
constexpr float NEVER = -std::numeric_limits<float>::infinity();

Vec all(float x) { return x - Vec{}; }

// e^x for x <= 0 to 1e-7 of itself: 2^n e^r, |r| <= ln 2 / 2. Exactly 1 at 0; 0 where the result is
// not a normal number.
Vec exponential(Vec x)
{
    const float rounds = 1.5f * (1 << 23);              // adding it leaves no bits behind the point
    const Vec n = (x * 1.44269504f + rounds) - rounds;
    // ln 2 in two parts, the first one short
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec y = r * (1.f / 5040) + 1.f / 720;
    for (const float coefficient : {1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f})
        y = y * r + coefficient;
    const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
    return x < -87 ? Vec{} : y * (Vec)power;
}

struct Buffer {
    struct Free {
        void operator()(float *x) const { operator delete[](x, std::align_val_t(4 * LANES)); }
    };
    std::unique_ptr<float[], Free> held;

    explicit Buffer(size_t floats)
        : held(static_cast<float *>(operator new[](floats * sizeof(float),
                                                   std::align_val_t(4 * LANES))))
    {
    }
    float *floats() const { return held.get(); }
    Vec *vectors() const { return reinterpret_cast<Vec *>(held.get()); }
};

// What a thread works with: the pixels of a group by channels, scores of two kinds, sums.
struct Scratch {
    Buffer keys, values, scores, products, sums;

    explicit Scratch(const Problem &p)
        : keys(size_t(LANES) * p.key_channels), values(size_t(LANES) * p.value_channels),
          scores(cells(p)), products(p.delta ? cells(p) : 0),
          sums(size_t(LANES) * std::max(p.key_channels, p.value_channels))
    {
    }

    static size_t cells(const Problem &p)
    {
        const size_t rows = std::min(p.window + HIGH, p.height),
                     columns = std::min(p.window + WIDE, p.width);
        return LANES * p.frames * rows * columns;
    }
};

// Pixels y to y + HIGH - 1, x to x + WIDE - 1, row by row in the lanes; and the rectangle of cells
// that they see.
struct Group {
    const Problem &p;
    int batch, y, x, pixel_rows, pixel_columns;         // those that are inside the map
    int first_row, rows, first_column, columns;

    Group(const Problem &p, int batch, int y, int x)
        : p(p), batch(batch), y(y), x(x), pixel_rows(std::min(HIGH, p.height - y)),
          pixel_columns(std::min(WIDE, p.width - x))
    {
        const int radius = p.window / 2;
        first_row = std::max(y - radius, 0),
        rows = std::min(y + pixel_rows + radius, p.height) - first_row;
        first_column = std::max(x - radius, 0),
        columns = std::min(x + pixel_columns + radius, p.width) - first_column;
    }

    int cells() const { return rows * columns; }
    size_t cell(int row, int column) const
    {
        return (size_t(batch) * p.height + row) * p.width + column;
    }

    // All bits of a lane where its pixel's window has this row, or column, of the rectangle.
    Ints near_row(int row) const
    {
        return near([&](int lane) { return first_row + row - y - lane / WIDE; });
    }
    Ints near_column(int column) const
    {
        return near([&](int lane) { return first_column + column - x - lane % WIDE; });
    }
    template <class Distance> Ints near(Distance distance_of) const
    {
        Ints distance = {};
        for (int lane = 0; lane < LANES; ++lane)
            distance[lane] = distance_of(lane);
        return (distance <= p.window / 2) & (distance >= -(p.window / 2));
    }

    // Of all taps of a lane's pixel, those that are outside the map.
    Vec outside() const
    {
        Ints inside_rows = {}, inside_columns = {};
        for (int row = 0; row < rows; ++row)
            inside_rows -= near_row(row);
        for (int column = 0; column < columns; ++column)
            inside_columns -= near_column(column);
        const float taps = float(p.window) * p.window, frames = p.frames;
        return frames * (taps - __builtin_convertvector(inside_rows * inside_columns, Vec));
    }

    // work(lane, place in a map) for the pixels inside the map.
    template <class Work> void for_pixels(Work work) const
    {
        for (int row = 0; row < pixel_rows; ++row)
            for (int column = 0; column < pixel_columns; ++column)
                work(row * WIDE + column, cell(y + row, x + column));
    }

    // The group's pixels of a map, channel after channel; zeros in lanes outside the map.
    void load(const float *map, int channels, Vec *to) const
    {
        std::fill_n(to, channels, Vec{});
        for_pixels([&](int lane, size_t place) {
            for (int c = 0; c < channels; ++c)
                to[c][lane] = map[place * channels + c];
        });
    }

    void store(const float *sums, Vec factors, int channels, float *map) const
    {
        for_pixels([&](int lane, size_t place) {
            for (int c = 0; c < channels; ++c)
                map[place * channels + c] = sums[lane * channels + c] * factors[lane];
        });
    }
};

template <int N> void score_cells(const Vec *pixels, const float *cells, int channels, Vec *to)
{
    Vec sums[N] = {};
    for (int c = 0; c < channels; ++c)
#pragma GCC unroll 12
        for (int i = 0; i < N; ++i)
            sums[i] += pixels[c] * cells[size_t(i) * channels + c];
    std::copy(sums, sums + N, to);
}

void score(const Group &g, const Vec *pixels, const float *map, int channels, Vec *to)
{
    for (int row = 0; row < g.rows; ++row, to += g.columns) {
        const float *cells = map + g.cell(g.first_row + row, g.first_column) * channels;
        int i = 0;
        for (; i + CELLS <= g.columns; i += CELLS)
            score_cells<CELLS>(pixels, cells + size_t(i) * channels, channels, to + i);
        for (; i + 3 <= g.columns; i += 3)
            score_cells<3>(pixels, cells + size_t(i) * channels, channels, to + i);
        for (; i < g.columns; ++i)
            score_cells<1>(pixels, cells + size_t(i) * channels, channels, to + i);
    }
}

// Adds to sums (LANES, channels), for a row of the group's pixels and N vectors of channels
// from c on.
template <int N>
void gather_part(const Group &g, const Vec *weights, const float *map, int channels, int pixel_row,
                 int c, float *sums)
{
    const int radius = g.p.window / 2, y = g.y + pixel_row;
    const auto at = [&](int i, int n) {
        return reinterpret_cast<Unaligned *>(sums + (pixel_row * WIDE + i) * channels + c) + n;
    };
    Vec held[WIDE][N];
    for (int i = 0; i < WIDE; ++i)
        for (int n = 0; n < N; ++n)
            held[i][n] = *at(i, n);
    for (int row = std::max(y - radius, 0); row < std::min(y + radius + 1, g.p.height); ++row) {
        const float *cell = map + g.cell(row, g.first_column) * channels + c;
        const Vec *line = weights + (row - g.first_row) * g.columns;
        const float *weight = reinterpret_cast<const float *>(line) + pixel_row * WIDE;
        for (int column = 0; column < g.columns; ++column, cell += channels, weight += LANES) {
            Vec x[N];
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n)
                x[n] = reinterpret_cast<const Unaligned *>(cell)[n];
#pragma GCC unroll 4
            for (int i = 0; i < WIDE; ++i)
#pragma GCC unroll 4
                for (int n = 0; n < N; ++n)
                    held[i][n] += weight[i] * x[n];
        }
    }
    for (int i = 0; i < WIDE; ++i)
        for (int n = 0; n < N; ++n)
            *at(i, n) = held[i][n];
}

void gather(const Group &g, const Vec *weights, const float *map, int channels, float *sums)
{
    int c = 0;
    for (; c + SUMS * LANES <= channels; c += SUMS * LANES)
        for (int row = 0; row < g.pixel_rows; ++row)
            gather_part<SUMS>(g, weights, map, channels, row, c, sums);
    for (; c < channels; c += LANES)
        for (int row = 0; row < g.pixel_rows; ++row)
            gather_part<1>(g, weights, map, channels, row, c, sums);
}

// work(cell, seen) for all cells of some frames; seen: by which lanes.
template <class Work> void for_cells(const Group &g, int frames, Work work)
{
    for (int column = 0; column < g.columns; ++column) {
        const Ints near = g.near_column(column);
        for (int row = 0; row < g.rows; ++row) {
            const Ints seen = near & g.near_row(row);
            for (int t = 0; t < frames; ++t)
                work((t * g.rows + row) * g.columns + column, seen);
        }
    }
}

struct Softmax {
    Vec largest, sum;
};

// Scores of all frames become exponentials relative to the largest;
// 0 where a pixel does not see a cell.
Softmax exponentials(const Group &g, Vec *scores)
{
    const Vec outside = g.outside();
    Vec largest = outside > 0 ? all(0) : all(NEVER);
    if (g.p.constant)
        largest = largest > *g.p.constant ? largest : all(*g.p.constant);
    for_cells(g, g.p.frames, [&](int i, Ints seen) {
        scores[i] = seen ? scores[i] : all(NEVER);
        largest = scores[i] > largest ? scores[i] : largest;
    });
    // Without any, -largest may be above 0
    Vec sum = outside > 0 ? outside * exponential(-largest) : Vec{};
    if (g.p.constant)
        sum += exponential(*g.p.constant - largest);
    for (int row = 0; row < g.p.frames * g.rows; ++row, scores += g.columns) {
        Vec part = {};  // by rows: a sum of over a thousand small numbers loses digits
        for (int column = 0; column < g.columns; ++column)
            part += scores[column] = exponential(scores[column] - largest);
        sum += part;
    }
    return {largest, sum};
}

void read(const Group &g, const Scratch &s)
{
    const Problem &p = g.p;
    Vec *pixels = s.keys.vectors(), *scores = s.scores.vectors();
    g.load(p.query, p.key_channels, pixels);
    for (int t = 0; t < p.frames; ++t)
        score(g, pixels, p.keys[t], p.key_channels, scores + t * g.cells());
    const Softmax softmax = exponentials(g, scores);
    const Vec inverse = 1 / softmax.sum;
    std::fill_n(s.sums.floats(), LANES * p.value_channels, 0.f);
    for (int t = 0; t < p.frames; ++t)
        gather(g, scores + t * g.cells(), p.values[t], p.value_channels, s.sums.floats());
    g.store(s.sums.floats(), inverse, p.value_channels, p.result);
    g.for_pixels([&](int lane, size_t query) {
        p.softmax[2 * query] = softmax.largest[lane];
        p.softmax[2 * query + 1] = inverse[lane];
    });
}

void of_queries(const Group &g, const Scratch &s)
{
    const Problem &p = g.p;
    Vec *weights = s.scores.vectors(), *products = s.products.vectors();
    Vec largest = {}, inverse = {}, delta = {};
    g.for_pixels([&](int lane, size_t query) {
        largest[lane] = p.softmax[2 * query];
        inverse[lane] = p.softmax[2 * query + 1];
    });
    g.load(p.query, p.key_channels, s.keys.vectors());
    g.load(p.gradient, p.value_channels, s.values.vectors());
    for (int t = 0; t < p.frames; ++t) {
        score(g, s.keys.vectors(), p.keys[t], p.key_channels, weights + t * g.cells());
        score(g, s.values.vectors(), p.values[t], p.value_channels, products + t * g.cells());
    }
    for_cells(g, p.frames, [&](int i, Ints seen) {
        weights[i] = seen ? exponential(weights[i] - largest) * inverse : Vec{};
        delta += weights[i] * products[i];
    });
    for (int i = 0; i < p.frames * g.cells(); ++i)
        products[i] = weights[i] * (products[i] - delta);
    std::fill_n(s.sums.floats(), LANES * p.key_channels, 0.f);
    for (int t = 0; t < p.frames; ++t)
        gather(g, products + t * g.cells(), p.keys[t], p.key_channels, s.sums.floats());
    g.store(s.sums.floats(), all(1), p.key_channels, p.result);
    g.for_pixels([&](int lane, size_t query) { p.delta[query] = delta[lane]; });
}

void of_memory(const Group &g, const Scratch &s, int frame)
{
    const Problem &p = g.p;
    Vec *weights = s.scores.vectors(), *products = s.products.vectors();
    g.load(p.keys[frame], p.key_channels, s.keys.vectors());
    g.load(p.values[frame], p.value_channels, s.values.vectors());
    score(g, s.keys.vectors(), p.query, p.key_channels, weights);
    score(g, s.values.vectors(), p.gradient, p.value_channels, products);
    for_cells(g, 1, [&](int i, Ints seen) {
        const size_t query = g.cell(g.first_row + i / g.columns, g.first_column + i % g.columns);
        const float largest = p.softmax[2 * query], inverse = p.softmax[2 * query + 1];
        weights[i] = seen ? exponential(weights[i] - largest) * inverse : Vec{};
        products[i] = weights[i] * (products[i] - p.delta[query]);
    });
    const auto sum = [&](const Vec *by, const float *of, int channels, float *to) {
        std::fill_n(s.sums.floats(), LANES * channels, 0.f);
        gather(g, by, of, channels, s.sums.floats());
        g.store(s.sums.floats(), all(1), channels, to);
    };
    sum(products, p.query, p.key_channels, p.of_keys[frame]);
    sum(weights, p.gradient, p.value_channels, p.of_values[frame]);
}

// work(thread) by as many threads, or by fewer: 0, 1, ..
#ifdef _OPENMP
template <class Work> void run_by_threads(int count, Work work)
{
// PyTorch's threads: they may still spin, waiting for its next operation
#pragma omp parallel num_threads(count)
    work(omp_get_thread_num());
}
#else
template <class Work> void run_by_threads(int count, Work work)
{
    std::vector<std::thread> others;
    others.reserve(count);
    try {
        for (int i = 1; i < count; ++i)
            others.emplace_back(work, i);
    } catch (const std::system_error &) {
        // no more can be had
    }
    work(0);
    for (std::thread &other : others)
        other.join();
}
#endif

// work(number of the map, y, x, scratch) for the groups of some maps, by several threads.
// -> 0, or 1 without enough memory
template <class Work> int for_groups(const Problem &p, int maps, Work work)
try {
    const int rows = (p.height + HIGH - 1) / HIGH, parts = (p.width + PART - 1) / PART,
              count = maps * rows * parts;
    std::vector<Scratch> scratch;
    for (int i = 0; i < std::max(std::min(p.threads, count), 1); ++i)
        scratch.emplace_back(p);
    std::atomic<int> next{0};
    const auto take = [&](const Scratch &s) {
        for (int i; (i = next++) < count;)
            for (int x = i % parts * PART; x < std::min((i % parts + 1) * PART, p.width); x += WIDE)
                work(i / parts / rows, i / parts % rows * HIGH, x, s);
    };
    run_by_threads(scratch.size(), [&](int thread) { take(scratch[thread]); });
    return 0;
} catch (const std::bad_alloc &) {
    return 1;
}

}  // namespace

extern "C" int read_memory(const Problem &p)
{
    return for_groups(p, p.batch, [&](int batch, int y, int x, const Scratch &s) {
        read(Group(p, batch, y, x), s);
    });
}

extern "C" int gradient_of_query(const Problem &p)
{
    return for_groups(p, p.batch, [&](int batch, int y, int x, const Scratch &s) {
        of_queries(Group(p, batch, y, x), s);
    });
}

extern "C" int gradient_of_memory(const Problem &p)
{
    return for_groups(p, p.frames * p.batch, [&](int number, int y, int x, const Scratch &s) {
        of_memory(Group(p, number % p.batch, y, x), s, number / p.batch);
    });
}
