/* SPDX-License-Identifier: Apache-2.0 */
/* YAML flattened into items: what comes out, on which line, and what is refused. */
#include "yaml_items.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct log {
    char text[2048];
    size_t used;
    int refuse; /* answer to the item named "stop" */
};

static int note(void *arg, const struct yaml_item *item)
{
    struct log *log = arg;
    int written = snprintf(
        log->text + log->used, sizeof log->text - log->used, "%u:%s=%s%s%s%s%u\n", item->line,
        item->key, item->value == NULL ? "(none)" : item->value, item->in_list ? " list" : "",
        item->list_start ? " first" : "", item->in_element ? "@" : "-", item->element);
    assert_true(written > 0 && (size_t)written < sizeof log->text - log->used);
    log->used += (size_t)written;
    return strcmp(item->key, "stop") == 0 ? log->refuse : 0;
}

static int walk(const char *text, struct log *log, char error[256])
{
    *log = (struct log){.refuse = E_DENIED};
    error[0] = '\0';
    return yaml_walk(text, strlen(text), note, log, error, 256);
}

static void maps_lists_and_maps_in_lists(void **state)
{
    (void)state;
    struct log log;
    char error[256];
    assert_int_equal(walk("a: 1\nb:\n  c: x y\n  d: [p, q]\ne: []\nn:\nz: ~\n"
                          "f:\n- {g: 2, h: [7, 8]}\n- g: 3\n",
                          &log, error),
                     0);
    assert_string_equal(log.text, "1:a=1-0\n3:b.c=x y-0\n4:b.d=p list first-0\n4:b.d=q list-0\n"
                                  "5:e=(none) list first-0\n9:f.g=2@0\n9:f.h=7 list first@0\n"
                                  "9:f.h=8 list@0\n10:f.g=3@1\n");
}

static void nothing_is_no_error(void **state)
{
    (void)state;
    struct log log;
    char error[256];
    static const char *const empty[] = {"", "# only a comment\n", "---\n", "~", "{}"};
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        assert_int_equal(walk(empty[i], &log, error), 0);
        assert_int_equal(log.used, 0);
    }
}

static void refusals_name_the_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"a: 1\nb: [1\n", "3: not valid YAML: "},
        {"a: 1\n b: 2\n", "2: not valid YAML: "},
        {"- 1\n", "1: the file must be a mapping"},
        {"plain", "1: the file must be a mapping"},
        {"a:\n- [1]\n", "2: a: a list inside a list"},
        {"a: &x 1\n", "1: anchors, aliases and tags"},
        {"a: !!str 1\n", "1: anchors, aliases and tags"},
        {"a: 1\nb: *x\n", "2: anchors, aliases and tags"},
        {"a: 1\n---\nb: 1\n", "2: more than one document"},
        {"? [x]\n: 1\n", "1: a key must be plain text"},
        {"'': 1\n", "1: key is empty or too long"},
        {"a: \"x\\0y\"\n", "1: a zero byte inside a value"},
        {"a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}\n", "1: nested too deeply"},
    };
    struct log log;
    char error[256];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(walk(cases[i].text, &log, error), E_CONFIG);
        if (strncmp(error, cases[i].error, strlen(cases[i].error)) != 0)
            fail_msg("%s: got \"%s\"", cases[i].text, error);
    }
}

static void the_items_own_error_ends_the_walk(void **state)
{
    (void)state;
    struct log log;
    char error[256];
    assert_int_equal(walk("a: 1\nstop: 1\nb: 1\n", &log, error), E_DENIED);
    assert_string_equal(error, "");
    assert_string_equal(log.text, "1:a=1-0\n2:stop=1-0\n");
}

static void lists_and_paths_are_bounded(void **state)
{
    (void)state;
    static char text[4 * YAML_ELEMENTS_MAX + 64];
    char error[256];
    struct log log;
    size_t used = (size_t)snprintf(text, sizeof text, "%0*d: 1\n", YAML_PATH_BYTES, 7);
    assert_true(used < sizeof text);
    assert_int_equal(walk(text, &log, error), E_CONFIG);
    assert_string_equal(error, "1: key is empty or too long");
    used = (size_t)snprintf(text, sizeof text, "a: [");
    for (size_t i = 0; i <= YAML_ELEMENTS_MAX; i++, used += 3)
        memcpy(text + used, "{},", 3);
    memcpy(text + used, "]\n", 3);
    assert_int_equal(walk(text, &log, error), E_CONFIG);
    assert_string_equal(error, "1: a: list is too long");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_lists_and_maps_in_lists),
        cmocka_unit_test(nothing_is_no_error),
        cmocka_unit_test(refusals_name_the_line),
        cmocka_unit_test(the_items_own_error_ends_the_walk),
        cmocka_unit_test(lists_and_paths_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
