  local word words=()
  for word in "${COMP_WORDS[@]:0:COMP_CWORD}"; do
    [[ $word == = ]] || words+=("$word")
  done
  words+=("${COMP_WORDS[COMP_CWORD]#=}")
  local COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1))

