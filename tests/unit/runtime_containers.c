/* SPDX-License-Identifier: Apache-2.0 */
/* registries.conf and its drop-ins (CRI-O, podman, buildah): entries that are there are added to,
 * new ones get a file of ours, and what a new one would hide is refused. */
#include "runtime_tree.h"

#define MAIN  "/etc/containers/registries.conf"
#define DROP  "/etc/containers/registries.conf.d/"
#define ENTRY "[[registry]]\nprefix = \"r.example.com\"\nlocation = \"r.example.com\"\n"
#define OURS  "[[registry.mirror]]\nlocation = \"127.0.0.1:65001\"\ninsecure = true\n"

static const struct runtime_registry one[] = {{"r.example.com", false}, {"b", false}};
static const struct runtime_registry plain[] = {{"r.example.com:5000", true}};
static struct runtime_options options;

static int set_up(void **state)
{
    int result = tree_make(state);
    options = tree_options(RUNTIME_CONTAINERS, one, 1);
    return result;
}

static void a_clean_node(void **state)
{
    (void)state;
    tree_there_and_back(&options, 1);
    tree_put(MAIN, "# Debian\nunqualified-search-registries = [\"docker.io\"]\n");
    tree_put(DROP "shortnames.conf", "[aliases]\n\"a\" = \"docker.io/a\"\n");
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    assert_string_equal(tree_get(DROP "shoal.conf"), BEGIN ENTRY OURS END);
}

static void plain_http(void **state)
{
    (void)state;
    options.registries = plain;
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    assert_string_equal(tree_get(DROP "shoal.conf"),
                        BEGIN "[[registry]]\nprefix = \"r.example.com:5000\"\n"
                              "location = \"r.example.com:5000\"\ninsecure = true\n" OURS END);
}

/* One of ours would replace it, with its mirrors and what it allows. */
static void an_entry_is_added_to_where_it_stands(void **state)
{
    (void)state;
    static const char head[] = "[[registry]]\nlocation = 'q'\n"
                               "[[registry]]\n"
                               "# house\n"
                               "location = \"r.example.com\"\n"
                               "mirror-by-digest-only = true\n";
    static const char tail[] = "# first mirror\n"
                               "[[registry.mirror]]\nlocation = \"corp\"\n"
                               "[[registry]]\nprefix = \"z\"\nlocation = \"z\"\n";
    char text[1024];
    (void)snprintf(text, sizeof text, "%s%s", head, tail);
    tree_put(MAIN, text);
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    (void)snprintf(text, sizeof text, "%s" BEGIN OURS END "%s", head, tail);
    assert_string_equal(tree_get(MAIN), text);
    assert_string_equal(tree_get(DROP "shoal.conf"), "(none)");
}

static void the_last_file_that_has_it_counts(void **state)
{
    (void)state;
    tree_put(MAIN, ENTRY);
    tree_put(DROP "10.conf", ENTRY "insecure = true");
    tree_put(DROP "20.conf.off", ENTRY);
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    assert_string_equal(tree_get(MAIN), ENTRY);
    assert_string_equal(tree_get(DROP "10.conf"),
                        ENTRY "insecure = true\n" BEGIN "#no line end before\n" OURS END);
}

static void by_hand_already(void **state)
{
    (void)state;
    tree_put(DROP "shoal.conf", ENTRY "[[registry.mirror]]\nlocation = '127.0.0.1:65001'\n");
    assert_int_equal(tree_apply(&options), 0);
    assert_non_null(strstr(tree_printed, "shoal.conf:1: names the agent already"));
}

/* The agent's default registry has changed: the old block goes. */
static void another_registry_moves_the_block(void **state)
{
    (void)state;
    tree_put(MAIN, ENTRY);
    assert_int_equal(tree_apply(&options), 1);
    options.registries = plain;
    assert_int_equal(tree_apply(&options), 2);
    assert_string_equal(tree_get(MAIN), ENTRY);
    assert_int_equal(tree_revert(&options), 0);
    assert_string_equal(tree_get(MAIN), ENTRY);
    assert_string_equal(tree_get(DROP "shoal.conf"), "(none)");
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[registries.search]\nregistries = ['docker.io']\n", MAIN ":1: this is version 1"},
        {"registry = [{location = 'x'}]\n", MAIN ":1: registries are written here in a way"},
        {"[registry]\n", MAIN ":1: registries are written here in a way"},
        {"[[registry]]\nprefix = '*.example.com'\nblocked = true\n",
         MAIN ":1: this entry stands for the registry by a pattern"},
        {ENTRY "blocked = true\n", MAIN ":1: the registry is blocked here"},
        {ENTRY ENTRY, MAIN ":4: a second entry of the same registry"},
        {ENTRY "mirror = [{location = 'corp'}]\n", MAIN ":4: mirrors are written here in a way"},
        {"[[registry]\n", MAIN ":1: a table's name without its end"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tree_put(MAIN, cases[i].text);
        tree_refused(&options, E_REFUSED, cases[i].message);
    }
    tree_put(MAIN, "[[registry]]\nprefix = '*.ample.com'\n[[registry]]\nprefix = '*.com.x'\n");
    tree_there_and_back(&options, 1); /* "*.ample.com" does not fit r.example.com */
    options.registry_count = 2;
    tree_refused(&options, E_INVALID, "the agent can stand for its default one only");
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tree_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_clean_node),
        T(plain_http),
        T(an_entry_is_added_to_where_it_stands),
        T(the_last_file_that_has_it_counts),
        T(by_hand_already),
        T(another_registry_moves_the_block),
        T(refusals),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
