import { type CommandEntry, nextWords, type Offer, pathsOf, takingNext } from "./vocabulary.js";

/** A script for fish 3 and later. */
export function fishScript(entries: readonly CommandEntry[]): string {
  const words = pathsOf(entries).flatMap((path) =>
    [...nextWords(entries, path)].map(
      ([word, summary]) => `complete -c ditrun -n '__ditrun_at ${quoted(path)}' -a ${word} -d ${quoted(summary)}`,
    ),
  );
  const unfinished = pathsOf(entries).map((path) => ({
    name: path,
    options: [
      ...new Map(
        entries
          .filter(({ name }) => path === "" || name.startsWith(`${path} `))
          .flatMap((entry) => entry.options.map((option) => [option.name, option] as const)),
      ).values(),
    ],
  }));
  const options = [...unfinished, ...entries].flatMap(({ name, options }) =>
    options.map(({ name: option, describe, offer, takesNext }) => {
      const start = `complete -c ditrun -n '__ditrun_at "${name}"' -l ${option} -d ${quoted(describe)}`;
      return offer ? `${start} ${taken(offer, takesNext)}` : start;
    }),
  );
  return `# Completion of ditrun for fish. To have it in every shell:
#   ditrun completion fish > ~/.config/fish/completions/ditrun.fish
function __ditrun_at
    set -l path
    set -l skip 0
    for word in (commandline -opc)[2..]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case ${takingNext(entries).join(" ")}
                set skip 1
            case '-*'
            case '*'
                set -a path $word
        end
    end
    test "$path" = "$argv[1]"
end
complete -c ditrun -f
complete -c ditrun -l help -d 'Say what there is'
complete -c ditrun -n '__ditrun_at ""' -l version -d 'Of ditrun'
${[...words, ...options].join("\n")}
`;
}

/** Within single quotes; a path of a condition is within double quotes there. */
const quoted = (text: string) => (text === "" ? '""' : /^\w+$/.test(text) ? text : `'${text.replaceAll("'", "\\'")}'`);

function taken({ names, files }: Offer, required: boolean): string {
  const list = names.length === 0 ? "" : ` -a '${names.join(" ")}'`;
  const needs = required ? "-r" : "";
  return `${needs} ${files === "none" ? "-f" : "-F"}${list}`.trim();
}
