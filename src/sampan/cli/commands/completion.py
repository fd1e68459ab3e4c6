"""sampan completion: scripts for shells. They ask `sampan __complete`, which reads the option tables."""

from __future__ import annotations

from sampan.cli.flags import Command, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "SHELL",
    "Generate the autocompletion script for the specified shell (bash, fish, zsh)",
    min_args=1,
    max_args=1,
    complete="words:bash,fish,zsh",
)

# each asks for the words as typed, the last one being completed: candidates (TAB description) one a line, then a line `:N`,
# N & 2: no blank after the word, N & 4: no file names
_BASH = r"""# bash completion for PROGRAM
_PROGRAM() {
    local cur=${COMP_WORDS[COMP_CWORD]} line directive=0
    local -a words=() found=()
    # COMP_WORDS splits at : and =, which are parts of our words: take them from the line itself
    read -r -a words <<<"${COMP_LINE:0:COMP_POINT}"
    [[ ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && words+=("")
    local whole=${words[${#words[@]}-1]}
    while IFS= read -r line; do
        case $line in
            :[0-9]*) directive=${line#:} ;;
            *) line=${line%%$'\t'*}; [[ $line == "$whole"* ]] && found+=("${line#"${whole%"$cur"}"}") ;;
        esac
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    COMPREPLY=("${found[@]}")
    ((directive & 2)) && compopt -o nospace
    ((${#found[@]} == 0 && !(directive & 4))) && compopt -o default
    return 0
}
complete -F _PROGRAM PROGRAM
"""
_ZSH = r"""#compdef PROGRAM
# zsh completion for PROGRAM
_PROGRAM() {
    local line directive=0
    local -a plain described
    for line in "${(@f)$(${words[1]} __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == :[0-9]* ]]; then
            directive=${line#:}
        elif [[ $line == *$'\t'* ]]; then
            described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        elif [[ -n $line ]]; then
            plain+=("$line")
        fi
    done
    local -a space
    (( directive & 2 )) && space=(-S '')
    (( $#described )) && _describe -t values 'PROGRAM' described $space
    (( $#plain )) && compadd $space -a plain
    (( $#described + $#plain == 0 && !(directive & 4) )) && _files
    return 0
}
if [ "$funcstack[1]" = "_PROGRAM" ]; then _PROGRAM; else compdef _PROGRAM PROGRAM; fi
"""
_FISH = r"""# fish completion for PROGRAM
function __PROGRAM_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] __complete $words[2..-1] 2>/dev/null)
    set -l directive (string match -r '^:(\d+)$' -- $found[-1])[2]
    set -e found[-1]
    if test (count $found) -eq 0; and test (math "floor($directive / 4) % 2") -eq 0
        __fish_complete_path (commandline -ct)
        return
    end
    printf '%s\n' $found
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def run(ctx: Context, args: Parsed) -> int:
    """Print the script of a shell."""
    from sampan.cli.commandtable import PROGRAM

    script = _SCRIPTS.get(args.args[0])
    if script is None:
        raise CliError(f'unsupported shell type "{args.args[0]}": must be one of bash, fish, zsh')
    ctx.print(script.replace("PROGRAM", PROGRAM).rstrip("\n"))
    return 0
