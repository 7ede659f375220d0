# fish completion for tftpd. Built by `make manuals`; changes to this file are lost.

complete -c tftpd -f
complete -c tftpd -n __fish_use_subcommand -s h -l help -d 'show a summary'
complete -c tftpd -n __fish_use_subcommand -l version -d 'show the version'

complete -c tftpd -n __fish_use_subcommand -a run -d 'serve in the foreground, as twistd -n tftp does'
complete -c tftpd -n '__fish_seen_subcommand_from run' -s h -l help -d 'show a summary'
complete -c tftpd -n '__fish_seen_subcommand_from run' -l config -s c -r -F -d 'the YAML file'

complete -c tftpd -n __fish_use_subcommand -a check -d 'report every problem of a configuration'
complete -c tftpd -n '__fish_seen_subcommand_from check' -s h -l help -d 'show a summary'
complete -c tftpd -n '__fish_seen_subcommand_from check' -F

complete -c tftpd -n __fish_use_subcommand -a schema -d 'print the JSON Schema of the configuration'
complete -c tftpd -n '__fish_seen_subcommand_from schema' -s h -l help -d 'show a summary'
