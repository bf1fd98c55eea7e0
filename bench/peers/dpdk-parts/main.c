/* DPDK's own parts doing the work of Sluice's bench: see path.h. Says on its first line what it is, as JSON, then measures a
 * round for every line it is sent:
 *
 *   dpdk-parts path established|first FLOWS v4|v6 RULES-FILE MILLIONS SEED SERVICES */
#define _GNU_SOURCE
#include "path.h"
#include <errno.h>
#include <rte_eal.h>
#include <rte_memory.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

/* Without hugetlbfs DPDK takes its memory from a memfd, which transparent huge pages do not reach. Where that is refused
 * it takes anonymous memory, which they do: otherwise these figures would flatter whoever is compared with them. */
int memfd_create(const char *name __rte_unused, unsigned flags __rte_unused)
{
    errno = ENOSYS;
    return -1;
}

static int ask_for_huge_pages(const struct rte_memseg_list *list, void *unused __rte_unused)
{
    return madvise(list->base_va, list->len, MADV_HUGEPAGE) && errno != EINVAL ? -1 : 0;
}

static void start(const char *name, unsigned megabytes)
{
    char memory[16], core[16];
    snprintf(memory, sizeof(memory), "%u", megabytes);
    snprintf(core, sizeof(core), "%d", sched_getcpu());
    char *arguments[] = { (char *)name, "--no-huge", "--no-shconf", "--no-pci", "--no-telemetry", "--log-level=error",
                          "-m", memory, "-l", core };
    if (rte_eal_init(sizeof(arguments) / sizeof(*arguments), arguments) < 0)
        fail("rte_eal_init");
    if (rte_memseg_list_walk(ask_for_huge_pages, NULL))
        fail("no huge pages");
}

static double huge_pages_mb(void)
{
    char line[256];
    double kilobytes = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    while (file && fgets(line, sizeof(line), file))
        sscanf(line, "AnonHugePages: %lf", &kilobytes);
    if (file)
        fclose(file);
    return kilobytes / 1024;
}

static double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int by_size(const void *one, const void *other)
{
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

/* Answers each line with what a round took. `chunk` returns the ns of CHUNK items. */
static void on_request(double (*chunk)(void *), void *state, unsigned millions)
{
    unsigned chunks = (millions * 1000000ull + CHUNK - 1) / CHUNK;
    double *spent_ns = malloc(chunks * sizeof(double));
    char line[64];
    while (fgets(line, sizeof(line), stdin)) {
        for (unsigned i = 0; i < chunks; i++)
            spent_ns[i] = chunk(state) / CHUNK;
        qsort(spent_ns, chunks, sizeof(double), by_size);
        printf("{\"quiet_ns\":%.2f,\"median_ns\":%.2f,\"p99_ns\":%.2f}\n", spent_ns[chunks / 10], spent_ns[chunks / 2],
               spent_ns[chunks * 99 / 100]);
        fflush(stdout);
    }
}

struct rig {
    struct path path;
    struct traffic traffic;
    enum kind kind;
    uint8_t *frames[CHUNK];
};

static double path_chunk(void *state)
{
    struct rig *rig = state;
    for (unsigned i = 0; i < CHUNK; i += BURST)
        write_burst(&rig->traffic, rig->frames + i, rig->kind);
    rig->path.output_count = 0;
    double started_ns = now_ns();
    for (unsigned i = 0; i < CHUNK; i += BURST)
        forward(&rig->path, rig->frames + i, rig->traffic.is_v6);
    double spent_ns = now_ns() - started_ns;
    if (rig->path.output_count != CHUNK)
        fail("a packet was dropped, so nothing was measured");
    return spent_ns;
}

static void warm_up(struct rig *rig, enum kind kind)
{
    rig->kind = kind;
    rig->traffic.burst = 0;
    uint64_t flows = rig->traffic.turns * PAIRS;
    for (uint64_t packets = 0; packets < flows; packets += CHUNK)
        path_chunk(rig);
}

static void run_path(char **arguments)
{
    bool is_first = !strcmp(arguments[0], "first"), is_v6 = !strcmp(arguments[2], "v6");
    uint64_t flows = strtoull(arguments[1], NULL, 10), seed = strtoull(arguments[5], NULL, 10);
    start("dpdk-parts", 512 + flows * (is_v6 ? 300 : 250) / 1000000);
    static struct rig rig;
    unsigned rules;
    struct rte_acl_ctx *acl = read_rules(arguments[3], is_v6, &rules);
    traffic_start(&rig.traffic, is_v6, flows, seed);
    make_path(&rig.path, rig.traffic.turns * PAIRS, is_v6, acl);
    uint8_t *memory = rte_zmalloc("frames", CHUNK * 2048, 2 << 20);
    if (!memory)
        fail("there is no memory for the frames");
    for (unsigned i = 0; i < CHUNK; i++)
        rig.frames[i] = memory + i * 2048;
    rig.kind = is_first ? KIND_FIRST : KIND_ESTABLISHED;
    for (unsigned i = 0; i < CHUNK; i += BURST)
        write_burst(&rig.traffic, rig.frames + i, rig.kind);
    uint64_t checksum = frames_checksum(rig.frames, is_v6);
    traffic_start(&rig.traffic, is_v6, flows, seed);
    if (is_first) {
        warm_up(&rig, KIND_FIRST);
    } else {
        for (enum kind kind = KIND_OPEN; kind <= KIND_CONFIRM; kind++)
            warm_up(&rig, kind);
        rig.kind = KIND_ESTABLISHED;
        rig.traffic.burst = 0;
    }
    printf("{\"frames\":\"%016lx\",\"rules\":%u,\"huge_pages_mb\":%.0f}\n", checksum, rules, huge_pages_mb());
    fflush(stdout);
    on_request(path_chunk, &rig, atoi(arguments[4]));
}

int main(int count, char **arguments)
{
    if (count == 9 && !strcmp(arguments[1], "path") && (services = strtoul(arguments[8], NULL, 10)) > 0)
        run_path(arguments + 2);
    else
        fail("see the first lines of main.c");
    return 0;
}
