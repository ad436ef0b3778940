/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports of runs and sweeps: JSON, CSV and pages say what the run was, hold every string safely,
 * and load nothing. With SIM_REPORT_DIR set the pages are also left there for a browser to read
 * (tests/integration/sim_report.py).
 */
#include <jansson.h>

#include "../../sim/report.h"
#include "sim_support.h"

#define MIB     (1ULL << 20)
#define PULL_AT (20 * SECOND_US)
/* Breaks out of text, attributes, scripts, CSV fields and JSON strings, if anything does. */
#define HOSTILE "<script>alert(1)</script>\"'&,;\n=1+1 \xFF\xC0\x80 \xC3\xA9 | ]]>"

struct finished {
    struct world *world;
    struct world_config config;
    struct report report;
};

static void finished_run(struct finished *out, uint32_t nodes, uint32_t zones, uint64_t seed)
{
    world_config_defaults(&out->config);
    out->config.seed = seed;
    out->config.node_count = nodes;
    out->config.zone_count = zones;
    out->world = world_new(&out->config);
    assert_non_null(out->world);
    sim_start_all(out->world, &out->config, 2 * SECOND_US);
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    uint32_t blob = world_add_blob(out->world, 48 * MIB);
    for (uint32_t node = 0; node < nodes; node++)
        (void)world_pull(out->world, node, blob, PULL_AT + prng_below(&prng, SECOND_US),
                         TRANSFER_READ_STREAM);
    (void)world_run(out->world, PULL_AT + 600 * SECOND_US, true);
    report_make(out->world, &out->config, &out->report);
    out->report.wall_s = 0.5;
    out->report.cpu_s = 0.5;
    out->report.rss_mib = 10;
}

static const struct report_setting settings[] = {
    {"nodes", "24"},
    {"image.layers", "[48MiB]"},
    {HOSTILE, HOSTILE},
    {"empty", ""},
};

static struct report_context context_of(const struct finished *run, const char *text)
{
    return (struct report_context){.scenario = text,
                                   .description = text,
                                   .command = text,
                                   .settings = settings,
                                   .setting_count = sizeof settings / sizeof settings[0],
                                   .config = &run->config};
}

enum form {
    FORM_JSON,
    FORM_CSV,
    FORM_HTML,
};

/* What a report writes; the caller frees it. */
static char *written(struct finished *run, const struct report_context *context, enum form form)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    if (form == FORM_JSON)
        assert_int_equal(report_write_json(&run->report, context, to), 0);
    else if (form == FORM_CSV)
        assert_int_equal(report_write_csv(&run->report, run->world, context, to), 0);
    else
        assert_int_equal(report_write_html(&run->report, run->world, context, to), 0);
    assert_int_equal(fclose(to), 0);
    assert_int_equal(strlen(text), bytes);
    return text;
}

static size_t count_of(const char *text, const char *part)
{
    size_t count = 0;
    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part))
        count++;
    return count;
}

static void keep_page(const char *name, const char *text)
{
    const char *folder = getenv("SIM_REPORT_DIR");
    char path[512];
    if (folder == NULL)
        return;
    assert_in_range(snprintf(path, sizeof path, "%s/%s", folder, name), 1, sizeof path - 1);
    FILE *to = fopen(path, "w");
    assert_non_null(to);
    assert_int_equal(fwrite(text, 1, strlen(text), to), strlen(text));
    assert_int_equal(fclose(to), 0);
}

static void json_has_the_keys_of_the_contract(void **state)
{
    (void)state;
    struct finished run;
    finished_run(&run, 24, 3, 5);
    struct report_context context = context_of(&run, HOSTILE);
    char *text = written(&run, &context, FORM_JSON);
    json_error_t error;
    json_t *object = json_loads(text, 0, &error);
    assert_non_null(object);
    static const char *const keys[] = {"scenario",
                                       "seed",
                                       "nodes",
                                       "zones",
                                       "bytes",
                                       "bound_s",
                                       "completion",
                                       "ratio",
                                       "origin_copies",
                                       "cross_zone_copies",
                                       "control_fraction",
                                       "upload_skew",
                                       "pulls_failed",
                                       "wrong_bytes",
                                       "no_mesh",
                                       "events",
                                       "events_per_cpu_s",
                                       "wall_s",
                                       "rss_mib",
                                       "trace_hash"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (json_object_get(object, keys[i]) == NULL)
            fail_msg("no key %s", keys[i]);
    }
    json_t *completion = json_object_get(object, "completion");
    json_t *ratio = json_object_get(object, "ratio");
    static const char *const times[] = {"p50_s", "p90_s", "p99_s", "p999_s", "last_s"};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        assert_true(json_is_real(json_object_get(completion, times[i])));
    assert_true(json_real_value(json_object_get(ratio, "last")) >= 1);
    assert_int_equal(json_integer_value(json_object_get(object, "nodes")), 24);
    assert_int_equal(json_integer_value(json_object_get(object, "bytes")), 48 * MIB);
    assert_true(json_number_value(json_object_get(object, "events_per_cpu_s")) > 0);
    assert_non_null(strstr(json_string_value(json_object_get(object, "scenario")), "<script>"));
    json_decref(object);
    free(text);
    world_free(run.world);
}

static void csv_has_a_line_per_node(void **state)
{
    (void)state;
    struct finished run;
    finished_run(&run, 24, 3, 5);
    struct report_context context = context_of(&run, "a,\"b\"");
    char *text = written(&run, &context, FORM_CSV);
    assert_int_equal(count_of(text, "\n"), 1 + 24);
    assert_int_equal(count_of(text, "\n\"a,\"\"b\"\"\",5,"), 24);
    uint64_t uploaded = 0, told = 0;
    for (uint32_t node = 0; node < 24; node++)
        uploaded += world_uploaded(run.world, node);
    for (const char *line = strchr(text, '\n'); line[1] != '\0'; line = strchr(line + 1, '\n')) {
        const char *end = strchr(line + 1, '\n');
        for (int fields = 0; fields < 7; end--)
            fields += end[-1] == ','; /* uploaded_bytes is the seventh from the end */
        told += strtoull(end + 1, NULL, 10);
    }
    assert_int_equal(told, uploaded);
    free(text);
    world_free(run.world);
}

static void page_tells_the_run(void **state)
{
    (void)state;
    struct finished run;
    finished_run(&run, 24, 3, 5);
    struct report_context context = context_of(&run, "three zones");
    context.description = "24 nodes in three zones pull 48 MiB within a second.";
    context.command = "shoal-sim run three.yaml --seed 5";
    char *text = written(&run, &context, FORM_HTML);
    assert_non_null(strstr(text, "24 nodes have the 48 MiB image after <b>"));
    assert_non_null(strstr(text, "shoal-sim run three.yaml --seed 5"));
    assert_non_null(strstr(text, "image.layers"));
    assert_int_equal(count_of(text, "<svg class=\"plot\""), 8);
    static const char *const marks[] = {
        "mark bar c-none",   "mark line c-mesh", "mark area c-origin", "mark area c-zone",
        "mark area c-cross", "mark bar c-zone",  "mark h10",           "mark area c-control"};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        if (strstr(text, marks[i]) == NULL)
            fail_msg("nothing of %s is drawn", marks[i]);
    }
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf\""));
    char *again = written(&run, &context, FORM_HTML);
    assert_string_equal(text, again);
    keep_page("run.html", text);
    free(again);
    free(text);
    world_free(run.world);
}

static void page_loads_and_runs_nothing_of_others(void **state)
{
    (void)state;
    struct finished run;
    finished_run(&run, 3, 1, 7);
    struct report_context context = context_of(&run, HOSTILE);
    char *text = written(&run, &context, FORM_HTML);
    assert_int_equal(count_of(text, "<script>"), 1);
    assert_int_equal(count_of(text, "</script>"), 1);
    assert_null(strstr(text, "alert(1)</script>"));
    assert_null(strstr(text, "\xFF"));
    assert_null(strstr(text, "src="));
    assert_null(strstr(text, "@import"));
    assert_null(strstr(text, "url("));
    assert_non_null(strstr(text, "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"));
    assert_non_null(strstr(text, "\xC3\xA9"));
    keep_page("hostile.html", text);
    free(text);
    world_free(run.world);
}

/* No node, no pull: every form still says so without a division by nothing. */
static void a_run_without_pulls_is_shown(void **state)
{
    (void)state;
    struct finished run = {0};
    world_config_defaults(&run.config);
    run.config.node_count = 1;
    run.config.zone_count = 1;
    run.world = world_new(&run.config);
    assert_non_null(run.world);
    world_start_node(run.world, 0, 0, false);
    (void)world_run(run.world, SECOND_US, false);
    report_make(run.world, &run.config, &run.report);
    struct report_context context = {.config = &run.config};
    char *text = written(&run, &context, FORM_HTML);
    assert_null(strstr(text, "nan"));
    keep_page("empty.html", text);
    free(text);
    text = written(&run, &context, FORM_JSON);
    json_error_t error;
    json_t *object = json_loads(text, 0, &error);
    assert_non_null(object);
    json_decref(object);
    free(text);
    world_free(run.world);
}

static void a_full_disk_is_an_error(void **state)
{
    (void)state;
    struct finished run;
    finished_run(&run, 2, 1, 9);
    struct report_context context = context_of(&run, "x");
    FILE *to = fopen("/dev/full", "w");
    assert_non_null(to);
    assert_int_equal(report_write_html(&run.report, run.world, &context, to), E_IO);
    assert_int_equal(report_write_json(&run.report, &context, to), E_IO);
    assert_int_equal(report_write_csv(&run.report, run.world, &context, to), E_IO);
    (void)fclose(to);
    world_free(run.world);
}

/* ---- sweeps ---- */

static struct report made_up(double last_s, uint32_t nodes)
{
    return (struct report){.seed = 1,
                           .nodes = nodes,
                           .zones = 3,
                           .bound_s = last_s * 0.9,
                           .p50_s = last_s * 0.95,
                           .p90_s = last_s * 0.96,
                           .p99_s = last_s * 0.98,
                           .p999_s = last_s,
                           .last_s = last_s,
                           .origin_copies = 1.01,
                           .cross_zone_copies = 2.02,
                           .bytes = 2048 * MIB,
                           .origin_bytes = 2068 * MIB,
                           .cross_zone_bytes = 4136 * MIB + nodes * MIB,
                           .upload_skew = 1.8,
                           .control_fraction = 0.0003,
                           .no_mesh_p50_s = last_s * nodes / 10,
                           .no_mesh_last_s = last_s * nodes / 10,
                           .events = 1000,
                           .trace_hash = 0xAB,
                           .cpu_s = 1};
}

static char *swept(const struct report_plan *plan, enum form form)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    int err = form == FORM_JSON  ? report_plan_json(plan, to)
              : form == FORM_CSV ? report_plan_csv(plan, to)
                                 : report_plan_html(plan, to);
    assert_int_equal(err, 0);
    assert_int_equal(fclose(to), 0);
    return text;
}

#define SWEEP_ROWS 10

struct sweep_case {
    const char *values[SWEEP_ROWS][2];
    struct report_plan_row rows[SWEEP_ROWS];
    struct report_plan plan;
};

static const char *const sweep_keys[] = {"nodes", "nic.up"};
static const char *const sweep_answers[] = {
    "A registry of 2 Gbit/s is enough for 1,000 nodes within 20 s.", HOSTILE};

/* Five node counts at two NIC rates. */
static void sweep_of(struct sweep_case *out)
{
    static const char *const counts[] = {"10", "100", "300", "1000", "3000"};
    for (size_t i = 0; i < SWEEP_ROWS; i++) {
        out->values[i][0] = counts[i / 2];
        out->values[i][1] = i % 2 == 0 ? "1Gbit/s" : "10Gbit/s";
        uint32_t nodes = (uint32_t)strtoul(counts[i / 2], NULL, 10);
        out->rows[i] = (struct report_plan_row){
            .values = out->values[i],
            .report = made_up((i % 2 == 0 ? 18 : 2) + (double)i / 4, nodes)};
    }
    out->rows[9].report.pulls_failed = 2;
    out->plan = (struct report_plan){.scenario = "how many nodes",
                                     .description = "The same image for more and more nodes.",
                                     .command = "shoal-sim plan acr-300 --sweep nodes=10,...",
                                     .answers = sweep_answers,
                                     .answer_count = 2,
                                     .keys = sweep_keys,
                                     .key_count = 2,
                                     .rows = out->rows,
                                     .row_count = SWEEP_ROWS,
                                     .settings = settings,
                                     .setting_count = sizeof settings / sizeof settings[0]};
}

static void sweep_page_has_a_line_per_combination(void **state)
{
    (void)state;
    struct sweep_case sweep;
    sweep_of(&sweep);
    char *text = swept(&sweep.plan, FORM_HTML);
    assert_int_equal(count_of(text, "<svg class=\"plot\""), 4);
    assert_int_equal(count_of(text, "mark line q0"), 4);
    assert_int_equal(count_of(text, "mark line q1"), 4);
    assert_int_equal(count_of(text, "mark line q2"), 0);
    assert_int_equal(count_of(text, "mark dot q0"), 4 * 5);
    assert_int_equal(count_of(text, "<tr class=\"bad\">"), 1);
    assert_int_equal(count_of(text, "<script>"), 1);
    assert_non_null(strstr(text, "A registry of 2 Gbit/s is enough"));
    keep_page("plan-two-keys.html", text);
    free(text);
    sweep.plan.key_count = 1; /* then each count has two points, on one line */
    text = swept(&sweep.plan, FORM_HTML);
    assert_int_equal(count_of(text, "mark line q0"), 4);
    assert_int_equal(count_of(text, "mark line q1"), 0);
    assert_int_equal(count_of(text, "mark line c-none"), 1);
    free(text);
}

static void one_key_is_shown_beside_bound_and_no_mesh(void **state)
{
    (void)state;
    struct sweep_case sweep;
    sweep_of(&sweep);
    for (size_t i = 0; i < SWEEP_ROWS / 2; i++)
        sweep.rows[i] = sweep.rows[2 * i];
    sweep.plan.row_count = SWEEP_ROWS / 2;
    sweep.plan.key_count = 1;
    sweep.plan.answer_count = 1;
    char *text = swept(&sweep.plan, FORM_HTML);
    assert_int_equal(count_of(text, "mark line c-none"), 1);
    assert_int_equal(count_of(text, "mark line c-bound"), 1);
    keep_page("plan-one-key.html", text);
    free(text);
}

static void words_and_units_find_their_place(void **state)
{
    (void)state;
    static const char *const words[] = {"mesh", "zone", HOSTILE};
    static const char *const rates[] = {"500Mbit/s", "2.5 Gbit/s", "10Gbit/s"};
    struct report_plan_row rows[3];
    struct report_plan plan = {.keys = sweep_keys, .key_count = 1, .rows = rows, .row_count = 3};
    for (size_t i = 0; i < 3; i++)
        rows[i] =
            (struct report_plan_row){.values = &words[i], .report = made_up(3 + (double)i, 20)};
    char *text = swept(&plan, FORM_HTML);
    assert_non_null(strstr(text, ">mesh</text>"));
    assert_int_equal(count_of(text, "mark dot q0"), 4 * 3);
    assert_null(strstr(text, "nan"));
    keep_page("plan-words.html", text);
    free(text);
    for (size_t i = 0; i < 3; i++)
        rows[i].values = &rates[i];
    text = swept(&plan, FORM_HTML);
    assert_non_null(strstr(text, "nodes (Gbit/s)"));
    free(text);
    plan.row_count = 0;
    text = swept(&plan, FORM_HTML);
    assert_null(strstr(text, "nan"));
    free(text);
}

static void sweep_json_and_csv_hold_every_row(void **state)
{
    (void)state;
    struct sweep_case sweep;
    sweep_of(&sweep);
    sweep.values[0][1] = HOSTILE;
    char *text = swept(&sweep.plan, FORM_JSON);
    json_error_t error;
    json_t *object = json_loads(text, 0, &error);
    assert_non_null(object);
    json_t *rows = json_object_get(object, "rows");
    assert_int_equal(json_array_size(rows), SWEEP_ROWS);
    json_t *row = json_array_get(rows, 3);
    const char *value =
        json_string_value(json_object_get(json_object_get(row, "values"), "nic.up"));
    assert_string_equal(value, "10Gbit/s");
    assert_int_equal(json_integer_value(json_object_get(row, "nodes")), 100);
    json_decref(object);
    free(text);
    text = swept(&sweep.plan, FORM_CSV);
    assert_int_equal(count_of(text, "\n"), 1 + SWEEP_ROWS + 1); /* the hostile value has one */
    assert_non_null(strstr(text, "\n100,10Gbit/s,1,100,3,"));
    assert_non_null(strstr(text, "</script>\"\"'&,;\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_has_the_keys_of_the_contract),
        cmocka_unit_test(csv_has_a_line_per_node),
        cmocka_unit_test(page_tells_the_run),
        cmocka_unit_test(page_loads_and_runs_nothing_of_others),
        cmocka_unit_test(a_run_without_pulls_is_shown),
        cmocka_unit_test(a_full_disk_is_an_error),
        cmocka_unit_test(sweep_page_has_a_line_per_combination),
        cmocka_unit_test(one_key_is_shown_beside_bound_and_no_mesh),
        cmocka_unit_test(words_and_units_find_their_place),
        cmocka_unit_test(sweep_json_and_csv_hold_every_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
