/* SPDX-License-Identifier: Apache-2.0 */
/* `shoal-sim plan`: command line and course; see plan.h. */
#include "plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "plan_jobs.h"
#include "quantity.h"

static void usage(FILE *to)
{
    fprintf(
        to,
        "usage: shoal-sim plan [SCENARIO] [--sweep KEY=A,B,C]... [--find KEY --target-time T] "
        "[OPTIONS]\n\n"
        "Runs a scenario for all combinations of the swept keys' values (without --sweep: as "
        "it is), and answers: how long\nthe last node takes, bytes over zone borders per "
        "roll-out, the gain over no mesh, what the registry and the disks save.\n"
        "With --find it searches, for each combination, the least value of a key that meets a "
        "target, or the most where more\nof it is worse.\n"
        "Prints a table, as JSON where stdout is no terminal. Interrupted it shows the runs "
        "that are done.\n\n"
        "  shoal-sim plan mine.yaml                                      a roll-out: time, "
        "gain, bytes over borders\n"
        "  shoal-sim plan mine.yaml --find origin.rate --target-time 20s      the smallest "
        "registry that suffices\n"
        "  shoal-sim plan mine.yaml --find links.cross --target-time 30s      the smallest links "
        "between zones\n"
        "  shoal-sim plan mine.yaml --sweep nodes=10,100,1000 --sweep zones=1,3  the gain "
        "at each size\n\n"
        "  --sweep KEY=A,B,C     values of a key; [a, b] is one value of a list\n"
        "  --find KEY            origin.rate, nic.up, links.cross, cache.capacity, nodes, ...\n"
        "  --target-time T       the last node's completion, as 60s\n"
        "  --target METRIC<=X    or >=; METRIC: ");
    plan__metric_names(to);
    fprintf(to, "\n"
                "  --from V, --to V      limits of the search (default: the key's)\n"
                "  --precision P         how near the answer comes (default 5%%)\n"
                "  --jobs N              processes at once (default: the machine's processors)\n"
                "  --json, --text        JSON on a terminal, the table elsewhere\n"
                "  --csv FILE, --html FILE, --quiet\n");
    scenario_args_help(to);
}

static int wrong(const char *what, const char *word)
{
    fprintf(stderr, "shoal-sim: %s: %s\n", word, what);
    return -1;
}

/* ---- --sweep ---- */

/* Cuts the next value off: to the next comma that is in no brackets. */
static char *next_value(char **rest)
{
    char *value = *rest;
    int depth = 0;
    size_t i = 0;
    for (; value[i] != '\0' && (depth > 0 || value[i] != ','); i++)
        depth += (value[i] == '[' || value[i] == '{') - (value[i] == ']' || value[i] == '}');
    *rest = value[i] == '\0' ? NULL : value + i + 1;
    value[i] = '\0';
    return value;
}

static int parse_values(struct plan_key *key, const char *list)
{
    char *text = strdup(list), *rest = text;
    int err = text == NULL ? wrong("out of memory", key->name) : 0;
    while (rest != NULL && err == 0) {
        char *value = next_value(&rest);
        if (*value == '\0' || strlen(value) >= PLAN_TEXT_BYTES ||
            key->value_count == PLAN_VALUES_MAX) {
            err = wrong("an empty or too long value, or more than 256 of them", key->name);
            break;
        }
        char *copy = strdup(value);
        err = copy == NULL ? wrong("out of memory", key->name) : 0;
        key->values[key->value_count] = copy;
        key->value_count += copy != NULL;
    }
    free(text);
    return err;
}

static int parse_sweep(struct plan *plan, const char *word)
{
    struct plan_key *key = &plan->keys[plan->key_count];
    const char *equals = strchr(word, '=');
    size_t count = 0;
    if (equals == NULL || (size_t)(equals - word) >= sizeof key->name || equals[1] == '\0')
        return wrong("write --sweep KEY=A,B,C", word);
    if (plan->key_count == PLAN_KEYS_MAX)
        return wrong("more than 8 swept keys", word);
    (void)snprintf(key->name, sizeof key->name, "%.*s", (int)(equals - word), word);
    size_t index = scenario_key_find(key->name);
    if (scenario_keys(&count)[index < count ? index : 0].list != SCENARIO_LIST_NONE &&
        index < count)
        return wrong("belongs to an element of a list and cannot be swept", key->name);
    for (size_t i = 0; i < plan->key_count; i++)
        if (strcmp(plan->keys[i].name, key->name) == 0)
            return wrong("is swept twice", key->name);
    plan->key_count++;
    return parse_values(key, equals + 1);
}

/* ---- --find ---- */

struct find_words {
    const char *key, *time, *target, *from, *to, *precision;
};

/* "hit_ratio>=0.9" */
static int parse_target(struct plan_find *find, const char *word)
{
    char name[64];
    size_t bytes = strcspn(word, "<>");
    char *end = NULL;
    if (bytes >= sizeof name || word[bytes] == '\0' || word[bytes + 1] != '=')
        return wrong("write --target METRIC<=X or METRIC>=X", word);
    (void)snprintf(name, sizeof name, "%.*s", (int)bytes, word);
    find->metric = plan__metric(name);
    if (find->metric == NULL) {
        fprintf(stderr, "shoal-sim: %s: no such metric; there are ", name);
        plan__metric_names(stderr);
        fputc('\n', stderr);
        return -1;
    }
    find->at_least = word[bytes] == '>';
    find->limit = strtod(word + bytes + 2, &end);
    if (end == word + bytes + 2 || *end != '\0' || !(find->limit > 0 && find->limit < 1e15))
        return wrong("the limit must be a number over 0", word);
    return 0;
}

/* A value by a key's rules. */
static int parse_value(const char *flag, const struct scenario_key *key, const char *word,
                       uint64_t *out)
{
    char range[SCENARIO_RANGE_BYTES];
    struct scenario *scratch = calloc(1, sizeof *scratch);
    int err = scratch == NULL ? E_NO_MEMORY : scenario_value_parse(key, word, scratch);
    if (err == 0)
        *out = scenario_value_number(key, scratch);
    free(scratch);
    if (err != 0)
        fprintf(stderr, "shoal-sim: %s: \"%.100s\" is not allowed; allowed: %s\n", flag, word,
                scenario_key_range(key, range));
    return err == 0 ? 0 : -1;
}

static int parse_time(struct plan_find *find, const char *word)
{
    uint64_t limit_us = 0;
    const struct scenario_key time = {.type = SCENARIO_TIME,
                                      .bytes = sizeof limit_us,
                                      .min = 1000,
                                      .max = 24 * 3600 * UINT64_C(1000000)};
    if (parse_value("--target-time", &time, word, &limit_us) != 0)
        return -1;
    find->metric = plan__metric("completion.last_s");
    find->limit = (double)limit_us / 1e6;
    return 0;
}

static int parse_find(struct plan *plan, const struct find_words *words)
{
    struct plan_find *find = &plan->find;
    uint64_t precision_ppm = 50000;
    size_t count = 0;
    const struct scenario_key *keys = scenario_keys(&count);
    if (words->key == NULL)
        return words->time != NULL || words->target != NULL || words->from != NULL ||
                       words->to != NULL
                   ? wrong("needs --find KEY", "--target")
                   : 0;
    size_t index = scenario_key_find(words->key);
    if (index == count || keys[index].list != SCENARIO_LIST_NONE || !plan__searchable(&keys[index]))
        return wrong(
            "is no key with a number that matters to a run; `shoal-sim example` shows all keys",
            words->key);
    if ((words->time == NULL) == (words->target == NULL))
        return wrong("needs either --target-time T or --target METRIC<=X", "--find");
    for (size_t i = 0; i < plan->key_count; i++)
        if (strcmp(plan->keys[i].name, words->key) == 0)
            return wrong("is swept and searched; choose one", words->key);
    find->key = &keys[index];
    find->from = find->key->min > 0 ? find->key->min : 1;
    find->to = find->key->max;
    if ((words->time != NULL ? parse_time(find, words->time) : parse_target(find, words->target)) !=
            0 ||
        (words->from != NULL && parse_value("--from", find->key, words->from, &find->from) != 0) ||
        (words->to != NULL && parse_value("--to", find->key, words->to, &find->to) != 0))
        return -1;
    find->wanted_from = find->from;
    if (find->from > find->to || find->from == 0)
        return wrong("must be over 0 and at most --to", "--from");
    const struct scenario_key fraction = {
        .type = SCENARIO_FRACTION, .bytes = sizeof precision_ppm, .min = 1000, .max = 1000000};
    if (words->precision != NULL &&
        scenario_value_parse(&fraction, words->precision, &precision_ppm) != 0)
        return wrong("must be from 0.1% to 100%", "--precision");
    find->precision = 1 + (double)precision_ppm / 1e6;
    return 0;
}

/* ---- the command line ---- */

struct words {
    struct find_words find;
    const char *jobs;
};

/* A flag with a word behind it: where the word goes. NULL: no such flag. */
static const char **place_of(struct plan *plan, struct words *words, const char *flag)
{
    const struct {
        const char *flag;
        const char **place;
    } places[] = {{"--find", &words->find.key},
                  {"--target-time", &words->find.time},
                  {"--target", &words->find.target},
                  {"--from", &words->find.from},
                  {"--to", &words->find.to},
                  {"--precision", &words->find.precision},
                  {"--jobs", &words->jobs},
                  {"--html", &plan->html},
                  {"--csv", &plan->csv}};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (strcmp(places[i].flag, flag) == 0)
            return places[i].place;
    return NULL;
}

static int parse_word(struct plan *plan, struct words *words, int argc, char **argv, int *i)
{
    const char *word = argv[*i];
    const char **place = place_of(plan, words, word);
    bool sweep = strcmp(word, "--sweep") == 0;
    if (place != NULL || sweep) {
        if (++*i == argc)
            return wrong("takes a value", word);
        if (sweep)
            return parse_sweep(plan, argv[*i]);
        *place = argv[*i];
        return 0;
    }
    if (strcmp(word, "--json") == 0) {
        plan->json = true;
    } else if (strcmp(word, "--text") == 0) {
        plan->text = true;
    } else if (strcmp(word, "--quiet") == 0) {
        plan->quiet = true;
    } else {
        int taken = scenario_args_take(&plan->args, argc, argv, i);
        if (taken == 0)
            return wrong("unknown option; see shoal-sim plan --help", word);
        return taken < 0 ? -1 : 0;
    }
    return 0;
}

/* 0; 1: --help was printed; -1: wrong. */
static int parse(struct plan *plan, int argc, char **argv)
{
    struct words words = {.jobs = NULL};
    uint64_t jobs = jobs_processors();
    scenario_args_init(&plan->args);
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            return 1;
        }
        if (parse_word(plan, &words, argc, argv, &i) != 0)
            return -1;
    }
    if (words.jobs != NULL && scenario_args_number("--jobs", words.jobs, 1, JOBS_MAX, &jobs) != 0)
        return -1;
    plan->jobs = (unsigned)jobs;
    if (parse_find(plan, &words.find) != 0)
        return -1;
    return scenario_args_finish(&plan->args);
}

/* ---- the course ---- */

/* Every combination loads before any runs: a mistake is told at once. */
static int check_points(const struct plan *plan)
{
    struct scenario_error error;
    struct scenario *scenario = malloc(sizeof *scenario);
    int err = scenario == NULL ? E_NO_MEMORY : 0;
    for (size_t i = 0; i < plan->point_count && err == 0; i++) {
        err = plan__load(plan, i, scenario, &error);
        if (err == 0)
            scenario_close(scenario);
        else
            fprintf(stderr, "shoal-sim: %s\n", err == E_CONFIG ? error.text : err_text(err));
    }
    free(scenario);
    return err;
}

static int course(struct plan *plan)
{
    plan->start_s = plan__now_s();
    int err = plan->find.key != NULL ? plan__find(plan) : plan__run(plan, 0, plan->point_count);
    plan__progress(plan, true);
    if (jobs_interrupted())
        plan__drop_unfinished(plan);
    if (err == 0)
        err = plan__conclude(plan);
    if (err != 0) {
        fprintf(stderr, "shoal-sim: %s\n", err_text(err));
        return 1;
    }
    err = plan__show(plan);
    bool bad = err != 0 || plan->unanswered;
    for (size_t i = 0; i < plan->point_count; i++)
        bad = bad || !plan->points[i].done || (plan->find.key == NULL && !plan->points[i].good);
    return jobs_interrupted() ? 130 : bad ? 1 : 0;
}

/* Without --sweep and --find: the scenario as it is, as a sweep of its own seed. */
static int sweep_itself(struct plan *plan)
{
    struct scenario_error error;
    struct plan_key *key = &plan->keys[0];
    struct scenario *scenario = malloc(sizeof *scenario);
    char text[PLAN_TEXT_BYTES];
    int err = scenario == NULL ? E_NO_MEMORY : scenario_load(&plan->args.options, scenario, &error);
    if (err == E_CONFIG)
        fprintf(stderr, "shoal-sim: %s\n", error.text);
    if (err == 0) {
        (void)snprintf(key->name, sizeof key->name, "seed");
        (void)snprintf(text, sizeof text, "%" PRIu64, scenario->world.seed);
        scenario_close(scenario);
        plan->key_count = 1;
        err = parse_values(key, text) == 0 ? 0 : E_NO_MEMORY;
    }
    free(scenario);
    return err;
}

static void plan_close(struct plan *plan)
{
    for (size_t i = 0; i < plan->key_count; i++)
        for (size_t v = 0; v < plan->keys[i].value_count; v++)
            free(plan->keys[i].values[v]);
    for (size_t i = 0; i < plan->point_count; i++)
        plan__close_point(&plan->points[i]);
    for (size_t i = 0; i < plan->answer_count; i++)
        free(plan->answers[i]);
    free(plan->points);
    free(plan->answers);
    scenario_args_close(&plan->args);
    free(plan);
}

int plan_command(int argc, char **argv)
{
    struct plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        return 1;
    (void)scenario_args_command(argc, argv, plan->command, sizeof plan->command);
    int code = parse(plan, argc, argv);
    if (code == 0) {
        int err = plan->key_count == 0 && plan->find.key == NULL ? sweep_itself(plan) : 0;
        if (err == 0)
            err = plan__expand(plan);
        if (err == E_TOO_LARGE)
            fprintf(stderr, "shoal-sim: more than %d combinations; sweep fewer values\n",
                    PLAN_POINTS_MAX);
        if (err == 0)
            err = check_points(plan);
        code = err != 0 ? 2 : course(plan);
    } else {
        code = code == 1 ? 0 : 2;
    }
    plan_close(plan);
    return code;
}
