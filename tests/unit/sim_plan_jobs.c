/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs in child processes: results, exit codes, deaths, too much output, stopping early. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../sim/plan_jobs.h"

#define COUNT 20

struct book {
    struct job_result results[COUNT];
    uint64_t values[COUNT];
    bool seen[COUNT];
    size_t done, stop_after;
};

static bool note(void *arg, size_t index, const struct job_result *result)
{
    struct book *book = arg;
    assert_true(index < COUNT && !book->seen[index]);
    book->seen[index] = true;
    book->results[index] = *result;
    if (result->output_bytes >= sizeof book->values[index])
        memcpy(&book->values[index], result->output, sizeof book->values[index]);
    return ++book->done < book->stop_after;
}

static int squares(void *arg, size_t index, FILE *out)
{
    (void)arg;
    uint64_t value = index * index;
    return fwrite(&value, sizeof value, 1, out) == 1 ? 0 : 1;
}

/* Every way to end. */
static int mixed(void *arg, size_t index, FILE *out)
{
    (void)arg;
    uint64_t word = index;
    switch (index) {
    case 1:
        return 7;
    case 2:
        (void)raise(SIGKILL);
        return 0;
    case 3:
        for (size_t i = 0; i < JOBS_OUTPUT_MAX; i++)
            (void)fwrite(&word, sizeof word, 1, out);
        return 0;
    case 4:
        for (size_t i = 0; i < 10000; i++) /* more than a pipe holds */
            (void)fwrite(&word, sizeof word, 1, out);
        return 0;
    default:
        return 0;
    }
}

static void every_job_gives_its_result(void **state)
{
    (void)state;
    for (unsigned parallel = 1; parallel <= 5; parallel += 2) {
        struct book book = {.stop_after = SIZE_MAX};
        struct jobs jobs = {
            .arg = &book, .work = squares, .done = note, .count = COUNT, .parallel = parallel};
        assert_int_equal(jobs_run(&jobs), 0);
        assert_int_equal(book.done, COUNT);
        for (size_t i = 0; i < COUNT; i++)
            assert_int_equal(book.values[i], i * i);
    }
}

static void deaths_are_results(void **state)
{
    (void)state;
    struct book book = {.stop_after = SIZE_MAX};
    struct jobs jobs = {.arg = &book, .work = mixed, .done = note, .count = 5, .parallel = 2};
    assert_int_equal(jobs_run(&jobs), 0);
    assert_int_equal(book.done, 5);
    assert_int_equal(book.results[0].code, 0);
    assert_int_equal(book.results[0].output_bytes, 0);
    assert_int_equal(book.results[1].code, 7);
    assert_int_equal(book.results[2].code, -1);
    assert_int_equal(book.results[2].signal, SIGKILL);
    assert_true(book.results[3].too_large);
    assert_int_equal(book.results[4].code, 0);
    assert_int_equal(book.results[4].output_bytes, 80000);
}

static void no_more_jobs_when_told(void **state)
{
    (void)state;
    struct book book = {.stop_after = 3};
    struct jobs jobs = {.arg = &book, .work = squares, .done = note, .count = COUNT, .parallel = 2};
    assert_int_equal(jobs_run(&jobs), 0);
    assert_in_range(book.done, 3, 4); /* one may have been running */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_job_gives_its_result),
        cmocka_unit_test(deaths_are_results),
        cmocka_unit_test(no_more_jobs_when_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
