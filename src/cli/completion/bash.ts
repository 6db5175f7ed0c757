import { type CommandEntry, nextWords, type Offer, offers, optionWords, pathsOf, takingNext } from "./vocabulary.js";

/** A script for bash 4 and later. */
export function bashScript(entries: readonly CommandEntry[]): string {
  const values = offers(entries).map(
    ({ at, option, offer }) => `    ${pattern(at, option)}) ${reply(offer)}; return ;;`,
  );
  const options = ["", ...entries.map(({ name }) => name)].map(
    (path) => `      ${path === "" ? "*" : `"${path}"`}) words="${optionWords(entries, path).join(" ")}" ;;`,
  );
  const paths = pathsOf(entries).map(
    (path) => `      "${path}") words="${[...nextWords(entries, path).keys()].join(" ")}" ;;`,
  );
  return `# Completion of ditrun for bash. To have it in every shell, add to ~/.bashrc:
#   source <(ditrun completion bash)
_ditrun() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} path= words= i word before
  # bash makes a word of the = in --option=value.
  [[ $cur == = ]] && cur= && prev="= "
  if [[ $prev == = ]]; then prev=\${COMP_WORDS[COMP_CWORD-2]}; elif [[ $prev == "= " ]]; then prev=\${COMP_WORDS[COMP_CWORD-1]}; fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case $word in
      =) ((i++)) ;;
      ${takingNext(entries).join("|")}) [[ \${COMP_WORDS[i+1]} == = ]] || ((i++)) ;;
      -*) ;;
      *) path="\${path:+$path }$word" ;;
    esac
  done
  COMPREPLY=()
  case "$path:$prev" in
${values.join("\n")}
  esac
  if [[ $cur == -* ]]; then
    case $path in
${[...options.slice(1), ...options.slice(0, 1)].join("\n")}
    esac
  else
    case $path in
${paths.join("\n")}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _ditrun ditrun
`;
}

const pattern = (at: string, option: string) => (at === "*" ? `*:${option}` : `"${at}:${option}"`);

function reply({ names, files, commas }: Offer): string {
  const list = names.join(" ");
  if (commas)
    return `before=; [[ $cur == *,* ]] && before="\${cur%,*},"; COMPREPLY=($(compgen -P "$before" -W "${list}" -- "\${cur##*,}")); compopt -o nospace`;
  const words = names.length === 0 ? [] : [`compgen -W "${list}" -- "$cur"`];
  const paths = files === "none" ? [] : [`compgen -${files === "files" ? "f" : "d"} -- "$cur"`];
  const all = [...words, ...paths];
  const option = files === "none" ? "" : "; compopt -o filenames";
  return all.length === 0 ? ":" : `COMPREPLY=($(${all.join("; ")}))${option}`;
}
