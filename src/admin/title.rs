//! The title that process lists show, from `proc-title-template`.

use crate::server::Server;
use crate::sys::process;

impl Server {
    /// Shows the title if the configuration asks for one. To be called where the address changed, too.
    pub fn show_title(&self) {
        if self.cfg.set_proc_title {
            process::set_title(self.title(None).as_bytes());
        }
    }

    /// The title, with `name` in place of the program's (child processes).
    pub fn title(&self, name: Option<&str>) -> String {
        let program = self.admin.argv.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        let mut title = String::new();
        let mut rest = self.cfg.proc_title_template.as_str();
        while let Some(open) = rest.find('{') {
            let Some(len) = rest[open..].find('}') else { break };
            title.push_str(&rest[..open]);
            title.push_str(&self.title_variable(&rest[open + 1..open + len], name.unwrap_or(&program)));
            rest = &rest[open + len + 1..];
        }
        title.push_str(rest);
        title.trim_matches(' ').to_string()
    }

    fn title_variable(&self, variable: &str, name: &str) -> String {
        let cfg = &self.cfg;
        match variable {
            "title" => name.to_string(),
            "listen-addr" if cfg.port != 0 || cfg.tls_port != 0 => {
                let port = if cfg.port != 0 { cfg.port } else { cfg.tls_port };
                format!("{}:{port}", cfg.bind.first().map_or("*", String::as_str))
            }
            "listen-addr" => format!("unixsocket:{}", cfg.unixsocket),
            "server-mode" if cfg.cluster_enabled => "[cluster]".into(),
            "config-file" if self.config_file.is_empty() => "-".into(),
            "config-file" => self.config_file.clone(),
            "port" => cfg.port.to_string(),
            "tls-port" => cfg.tls_port.to_string(),
            "unixsocket" => cfg.unixsocket.clone(),
            _ => String::new(),
        }
    }
}
